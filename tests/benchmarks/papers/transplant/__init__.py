"""``rootstock bench transplant``: the experiments of Network Transplanting, on real images."""
