"""Commands of the coordinator's operator: `rootstock coordinator`."""
