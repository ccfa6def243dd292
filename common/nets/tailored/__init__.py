"""ResNets of which a lab kept the paths that its task needs (NetTailor)."""
