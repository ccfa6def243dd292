"""The centre of a federation."""
