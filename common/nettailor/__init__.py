"""Tailoring a net to a task: pre-trained blocks are kept or replaced, one by one (NetTailor)."""
