"""The daemon at a lab."""
