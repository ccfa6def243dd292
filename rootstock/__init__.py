"""Rootstock: one universal net, grown out of nets that labs trained on data they never share.

In a checkout the five packages of this folder are links to the folders beside it; in the wheel
they are folders. Everything is imported as ``rootstock.…``.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("rootstock-federation")
except PackageNotFoundError:  # a checkout on the path that was not installed
    __version__ = "0+unknown"
