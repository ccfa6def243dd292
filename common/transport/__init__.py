"""Resumable chunk streams, channel settings, retry policy, the map of status codes."""
