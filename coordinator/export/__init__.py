"""Composed nets for applications: exported, and at work on pictures."""
