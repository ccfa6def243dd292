"""Architectures and where they split, modules, adapters, the transplant net as a graph."""
