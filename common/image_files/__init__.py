"""Image files: which of a folder are read, how each is decoded, and what there is to say of it."""
