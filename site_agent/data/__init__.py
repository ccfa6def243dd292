"""A lab's private data behind one small interface."""
