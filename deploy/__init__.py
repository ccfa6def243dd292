"""How Rootstock is put together."""
