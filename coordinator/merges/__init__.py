"""One merge from queued to its end."""
