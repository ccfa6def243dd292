"""Layers of a net by their names, with the types that they have."""

from __future__ import annotations

from typing import TypeVar

from torch import Tensor, nn

Layer = TypeVar("Layer", bound=nn.Module)


def layer(net: nn.Module, name: str, kind: type[Layer]) -> Layer:
    found = net.get_submodule(name)
    assert isinstance(found, kind), f"{name} is a {type(found).__name__}"
    return found


def weight(net: nn.Module, name: str) -> Tensor:
    """Return the weight of a layer, whatever its type."""
    return net.get_parameter(f"{name}.weight")
