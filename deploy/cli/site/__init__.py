"""Commands at a lab: `rootstock site`."""
