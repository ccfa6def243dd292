"""Command line and coordinator."""
