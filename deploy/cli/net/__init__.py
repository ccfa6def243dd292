"""Commands that read and grow the net: `rootstock net`."""
