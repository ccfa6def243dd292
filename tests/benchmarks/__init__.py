"""Measurements behind `rootstock bench`; they run from a checkout and are not installed."""
