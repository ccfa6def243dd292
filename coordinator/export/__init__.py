"""Composed nets for applications: exported to files, and applied to pictures."""
