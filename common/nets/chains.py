"""A net of another library taken apart into a chain of layers, read from how it runs.

torch's tracer writes down what a module's forward does with its children. Where that is one thing
after the other, the module is its children in that order; where it branches, it is one layer, a
block. Two blocks of one class stay alike: a class that branches anywhere is nowhere taken apart.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import NamedTuple

import torch
from torch import fx, nn
from torch.nn import functional as F  # noqa: N812  # PyTorch's own name for it

from rootstock.common.errors import SchemaError

_UNTRACED = (AttributeError, IndexError, KeyError, NameError, RuntimeError, TypeError, ValueError)
"""What forward raises where it looks at numbers, or at shapes, that a tracer has not."""


class Link(NamedTuple):
    """A layer of a chain."""

    name: str
    """Its path in the net in small letters, "_" for dots; of a function, what it does."""
    path: str | None
    """Where it stands in the net; None for what a function does."""
    of: Callable[[nn.Module], nn.Module]
    """Returns the layer of a net that is built alike."""


def taken_apart(net: nn.Module) -> list[Link]:
    """Return the layers that a net runs one after the other; SchemaError if it is no chain."""
    steps = _steps(net)
    if isinstance(steps, str):
        raise SchemaError(f"it is no chain of blocks: {steps}; choose a net that is")
    blocks = {type(m) for m in net.modules() if _branches(m)}
    names: dict[str, str | None] = {}
    links: list[Link] = []
    for path, step in _walked(net, "", steps, blocks):
        name = (path or step.name).replace(".", "_").lower()
        if path is not None and names.get(name) == path and _has_values(net.get_submodule(path)):
            raise SchemaError(
                f"its layer '{path}' runs at two places, so it is no chain; choose a net that is"
            )
        if name in names:
            name = f"{name}_{len(links)}"
        names[name] = path
        links.append(Link(name, path, step.of))
    return links


class _Step(NamedTuple):
    """What happens to a module's input: a child runs, or a function that a layer stands for."""

    name: str
    """The child's own path in the module, or a name for what the function does."""
    child: bool
    of: Callable[[nn.Module], nn.Module]


class _Children(fx.Tracer):
    """Traces a module's own forward; its children stay calls."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:  # noqa: ARG002
        return True


def _walked(
    net: nn.Module, path: str, steps: Iterable[_Step], blocks: set[type[nn.Module]]
) -> Iterator[tuple[str | None, _Step]]:
    for step in steps:
        if not step.child:
            yield None, step
            continue
        below = f"{path}.{step.name}" if path else step.name
        child = net.get_submodule(below)
        inner = None if type(child) in blocks or not _has_children(child) else _steps(child)
        if inner is None or isinstance(inner, str):
            yield below, step._replace(of=partial(_submodule, below))
        else:
            yield from _walked(net, below, inner, blocks)


def _submodule(path: str, net: nn.Module) -> nn.Module:
    return net.get_submodule(path)


def _has_values(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None


def _has_children(module: nn.Module) -> bool:
    return next(module.children(), None) is not None


def _branches(module: nn.Module) -> bool:
    return _has_children(module) and isinstance(_steps(module), str)


def _steps(module: nn.Module) -> list[_Step] | str:
    """Return what a module does to its input, one after the other, or why there is no such list."""
    if type(module).forward is nn.Sequential.forward:
        return [_Step(name, child=True, of=partial(_submodule, name)) for name in module._modules]
    given = list(inspect.signature(module.forward).parameters.values())[1:]
    defaults = {p.name: p.default for p in given if p.default is not inspect.Parameter.empty}
    try:
        tracer = _Children()
        graph = tracer.trace(module, concrete_args=defaults or None)
    except _UNTRACED as error:
        return f"what {_named(module)} does depends on its input ({str(error).splitlines()[0]})"
    steps: list[_Step] = []
    (node,) = (node for node in graph.nodes if node.op == "output")
    while True:
        if len(node.all_input_nodes) != 1:
            return f"{_named(module)} branches, and joins again at '{node.name}'"
        (node,) = node.all_input_nodes
        if node.op == "placeholder":
            return steps[::-1]
        if node.op == "call_module":
            name = str(node.target)
            steps.append(_Step(name, child=True, of=partial(_submodule, name)))
            continue
        known = _LAYERS.get(node.target)
        layers = known(node) if known is not None else None
        if layers is None and len(node.all_input_nodes) == 1:
            return f"{_named(module)} does '{node.name}', which no layer here stands for"
        steps += [
            _Step(name, child=False, of=partial(_made, make))
            for name, make in reversed(layers or [])
        ]


def _made(make: Callable[[], nn.Module], _: nn.Module) -> nn.Module:
    return make()


def _named(module: nn.Module) -> str:
    return type(module).__name__


_Layers = list[tuple[str, Callable[[], nn.Module]]]


def _argument(node: fx.Node, place: int, name: str, default: object) -> object:
    return node.args[place] if len(node.args) > place else node.kwargs.get(name, default)


def _flatten(node: fx.Node) -> _Layers | None:
    whole = (_argument(node, 1, "start_dim", 0), _argument(node, 2, "end_dim", -1)) == (1, -1)
    return [("flatten", nn.Flatten)] if whole else None


def _relu(_: fx.Node) -> _Layers:
    return [("relu", nn.ReLU)]


def _adaptive(node: fx.Node) -> _Layers | None:
    size = _argument(node, 1, "output_size", None)
    return [("avgpool", partial(nn.AdaptiveAvgPool2d, 1))] if size in (1, (1, 1), [1, 1]) else None


def _mean(node: fx.Node) -> _Layers | None:
    sides, keeps = _argument(node, 1, "dim", None), _argument(node, 2, "keepdim", default=False)
    if not isinstance(sides, list | tuple) or list(sides) not in ([2, 3], [-2, -1]):
        return None
    pooled: _Layers = [("avgpool", partial(nn.AdaptiveAvgPool2d, 1))]
    return pooled if keeps else [*pooled, ("flatten", nn.Flatten)]


def _dropout(node: fx.Node) -> _Layers | None:
    share = _argument(node, 1, "p", 0.5)
    return [("drop", partial(nn.Dropout, share))] if isinstance(share, float) else None


def _nothing(_: fx.Node) -> _Layers:
    return []


_LAYERS: dict[object, Callable[[fx.Node], _Layers | None]] = {
    F.adaptive_avg_pool2d: _adaptive,
    F.dropout: _dropout,
    F.relu: _relu,
    torch.flatten: _flatten,
    torch.relu: _relu,
    "contiguous": _nothing,
    "flatten": _flatten,
    "mean": _mean,
    "relu": _relu,
}
"""Layers for what a forward does without one, by the function or the tensor's method."""
