"""Rootstock: one universal net, grown out of nets that labs trained on data they never share.

`load_composed` reads a net that `rootstock net export` wrote as safetensors. In a checkout the five
packages of this folder are links to the folders beside it; in the wheel they are folders.
"""

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rootstock.common.nets.composed import load_composed

__all__ = ["__version__", "load_composed"]

try:
    __version__ = version("rootstock-federation")
except PackageNotFoundError:  # a checkout on the path that was not installed
    __version__ = "0+unknown"


def __getattr__(name: str) -> Any:
    """Import what is public when it is asked for: torch takes a second."""
    if name == "load_composed":
        from rootstock.common.nets.composed import load_composed

        return load_composed
    raise AttributeError(f"module 'rootstock' has no attribute '{name}'")
