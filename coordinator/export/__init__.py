"""A composed net for an application."""
