"""The methods `auto` and `dream`: the teacher answers images that are made for it."""
