"""Measurements behind `rootstock bench`."""
