"""A net of another library taken apart into a chain of layers, read from one pass through it.

A pass through a net on the meta device, which costs nothing, writes down what each module's forward
does: which children and which functions it calls, on which tensors. Where that is one after the
other, the module is its children in that order; where it branches, it is one layer, a block. Two
blocks of one class stay alike: a class that branches anywhere is nowhere taken apart. Nothing is
changed outside of the net and of the thread: other threads' nets run meanwhile.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # PyTorch's own name for it
from torch.overrides import TorchFunctionMode

from rootstock.common.errors import SchemaError


class Link(NamedTuple):
    """A layer of a chain."""

    name: str
    """Its path in the net in small letters, "_" for dots; of a function, what it does."""
    path: str | None
    """Its path in the net; None for a function."""
    of: Callable[[nn.Module], nn.Module]
    """Returns the layer of a net that is built alike."""
    shape: torch.Size
    """Shape of its output."""
    signed: bool
    """Whether its output may be negative; True where that is not known."""


def taken_apart(net: nn.Module, images_NCHW: Tensor) -> list[Link]:
    """Return the layers that a net runs one after the other; SchemaError if it is no chain.

    The net and the images are on the meta device. A net that does other things in training than in
    evaluation is refused, as labs train its parts. Errors of the net's own forward pass through.
    """
    links = _links(net.eval(), images_NCHW)
    names = [link.name for link in links]
    if names != [link.name for link in _links(net.train(), images_NCHW)]:
        raise SchemaError("it runs other layers in training than in evaluation")
    net.eval()
    return links


def _links(net: nn.Module, images_NCHW: Tensor) -> list[Link]:
    recorded = _recorded(net, images_NCHW)
    call = recorded.root
    steps = _steps(call, net)
    if isinstance(steps, str):
        raise SchemaError(f"it is no chain of blocks: {steps}")
    blocks = {type(_child(net, inner)) for inner in _calls(call) if _branches(inner, net)}
    seen: set[str] = set()
    links: list[Link] = []
    for step in _walked(net, steps, blocks - {nn.Sequential}):
        path, output = step.path, step.output
        assert isinstance(output, Tensor)  # noqa: S101  # a step of a chain
        if path is None:
            layers = _layers(step) or []
        else:
            again = path in seen
            if again and _has_values(net.get_submodule(path)):
                raise SchemaError(f"it is no chain of blocks: its layer '{path}' runs twice")
            seen.add(path)
            layers = [(path, partial(_submodule, path, again))]
        for given, of in layers:
            name = _free(given.replace(".", "_").lower(), {link.name for link in links})
            links.append(
                Link(name, path, of, output.shape, not _unsigned(step, recorded.producers))
            )
    return links


@dataclass(eq=False)
class _Call:
    """A call of a module or of a function, in some module's forward."""

    path: str | None
    """The module's path in the net; None for a function."""
    function: object
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    output: object = None
    inner: list[_Call] = field(default_factory=list)
    """What the module's forward calls."""

    @property
    def inputs(self) -> list[Tensor]:
        return list(_tensors((*self.args, *self.kwargs.values())))

    @property
    def name(self) -> str:
        return self.path or str(getattr(self.function, "__name__", self.function))


class _Recorder(TorchFunctionMode):
    """Writes down the calls of one pass, in this thread alone."""

    def __init__(self, root: _Call) -> None:
        super().__init__()
        self.root, self._open = root, [root]
        self.producers: dict[int, _Call] = {}
        """Which call a tensor comes from, by the tensor's id; calls keep their tensors alive."""

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        if any(True for _ in _tensors((output,))):
            self._note(_Call(None, func, args, kwargs, output))
        return output

    def begin(self, path: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self._open.append(_Call(path, None, args, kwargs))

    def end(self, output: object) -> None:
        call = self._open.pop()
        call.output = output
        self._note(call)

    def _note(self, call: _Call) -> None:
        self._open[-1].inner.append(call)
        for tensor in _tensors((call.output,)):
            if call.path is None and any(tensor is given for given in call.inputs):
                if call.function not in _KEEP_THE_SIGN:
                    self.producers[id(tensor)] = call  # it was changed in place
            else:
                # What a module gives comes from what it called last, which says more of its sign.
                self.producers.setdefault(id(tensor), call)


def _recorded(net: nn.Module, images_NCHW: Tensor) -> _Recorder:
    root = _Call("", None, (images_NCHW,), {})
    recorder = _Recorder(root)
    hooks = []
    for path, module in net.named_modules():
        if path:
            begin = partial(_begin, recorder, path)
            hooks.append(module.register_forward_pre_hook(begin, with_kwargs=True))
            hooks.append(module.register_forward_hook(partial(_end, recorder)))
    try:
        with recorder, torch.no_grad():
            root.output = net(images_NCHW)
    finally:
        for hook in hooks:
            hook.remove()
    return recorder


def _begin(
    recorder: _Recorder, path: str, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    recorder.begin(path, args, kwargs)


def _end(recorder: _Recorder, _: nn.Module, __: object, output: object) -> None:
    recorder.end(output)


def _tensors(values: Sequence[object]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _calls(call: _Call) -> Iterator[_Call]:
    """Yield the calls of modules below one, at any depth."""
    for inner in call.inner:
        if inner.path is not None:
            yield inner
            yield from _calls(inner)


def _child(net: nn.Module, call: _Call) -> nn.Module:
    return net.get_submodule(call.path or "")


def _branches(call: _Call, net: nn.Module) -> bool:
    return _has_children(_child(net, call)) and isinstance(_steps(call, net), str)


def _steps(call: _Call, net: nn.Module) -> list[_Call] | str:
    """Return what a module does to its input, one after the other, or why there is no such list."""
    what = type(_child(net, call)).__name__
    if len(call.inputs) != 1 or len(call.args) != 1 or call.kwargs:
        return f"a {what} takes more than one map"
    (at,) = call.inputs
    for step in call.inner:
        inputs = step.inputs
        if len(inputs) != 1 or inputs[0] is not at:
            return f"a {what} branches, and joins again at '{step.name}'"
        if step.path is None and _layers(step) is None:
            return f"a {what} does '{step.name}', which no layer here stands for"
        if step.path is not None and (len(step.args) != 1 or step.kwargs):
            return f"a {what} gives '{step.name}' more than a map"
        if not isinstance(step.output, Tensor):
            return f"'{step.name}' gives a {type(step.output).__name__}, not one map"
        at = step.output
    return call.inner if call.output is at else f"a {what} gives more than one map"


def _walked(
    net: nn.Module, steps: Sequence[_Call], blocks: set[type[nn.Module]]
) -> Iterator[_Call]:
    for step in steps:
        inner: list[_Call] | str = ""
        if step.path is not None:
            child = _child(net, step)
            if _has_children(child) and type(child) not in blocks:
                inner = _steps(step, net)
        if isinstance(inner, str):
            yield step
        else:
            yield from _walked(net, inner, blocks)


def _has_values(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None


def _has_children(module: nn.Module) -> bool:
    return next(module.children(), None) is not None


def _free(name: str, taken: set[str]) -> str:
    """Return a name that is not taken: itself, or with a number behind it."""
    number, free = 2, name
    while free in taken:
        number, free = number + 1, f"{name}_{number}"
    return free


def _submodule(path: str, again: bool, net: nn.Module) -> nn.Module:
    """Return a net's layer; where it runs once more, a copy, as a chain has each layer once."""
    layer = net.get_submodule(path)
    return copy.deepcopy(layer) if again else layer


_Layers = list[tuple[str, Callable[[nn.Module], nn.Module]]]


def _made(name: str, kind: Callable[..., nn.Module], *settings: object) -> _Layers:
    return [(name, lambda _: kind(*settings))]


def _layers(call: _Call) -> _Layers | None:
    """Return the layers that stand for a function; None where there are none."""
    known = _FUNCTIONS.get(call.function)
    return None if known is None else known(call)


def _argument(call: _Call, place: int, name: str, default: object) -> object:
    return call.args[place] if len(call.args) > place else call.kwargs.get(name, default)


def _flatten(call: _Call) -> _Layers | None:
    whole = (_argument(call, 1, "start_dim", 0), _argument(call, 2, "end_dim", -1)) == (1, -1)
    return _made("flatten", nn.Flatten) if whole else None


def _relu(_: _Call) -> _Layers:
    return _made("relu", nn.ReLU)


def _adaptive(call: _Call) -> _Layers | None:
    size = _argument(call, 1, "output_size", None)
    return _made("avgpool", nn.AdaptiveAvgPool2d, 1) if size in (1, (1, 1), [1, 1]) else None


def _mean(call: _Call) -> _Layers | None:
    sides, keeps = _argument(call, 1, "dim", None), _argument(call, 2, "keepdim", default=False)
    if not isinstance(sides, list | tuple) or list(sides) not in ([2, 3], [-2, -1]):
        return None
    pooled = _made("avgpool", nn.AdaptiveAvgPool2d, 1)
    return pooled if keeps else [*pooled, *_made("flatten", nn.Flatten)]


def _dropout(call: _Call) -> _Layers | None:
    share = _argument(call, 1, "p", 0.5)
    return _made("drop", nn.Dropout, share) if isinstance(share, float) else None


def _nothing(_: _Call) -> _Layers:
    return []


_FUNCTIONS: dict[object, Callable[[_Call], _Layers | None]] = {
    F.adaptive_avg_pool2d: _adaptive,
    F.dropout: _dropout,
    F.relu: _relu,
    torch.flatten: _flatten,
    torch.relu: _relu,
    Tensor.contiguous: _nothing,
    Tensor.flatten: _flatten,
    Tensor.mean: _mean,
    Tensor.relu: _relu,
}
"""Layers for what a forward does without one, by function."""

_NOT_NEGATIVE: set[object] = {F.relu, F.relu6, F.sigmoid, F.hardsigmoid, F.softmax}
_NOT_NEGATIVE |= {torch.relu, torch.sigmoid, Tensor.relu, Tensor.sigmoid}
_KEEP_THE_SIGN: set[object] = {
    F.adaptive_avg_pool2d,
    F.avg_pool2d,
    F.dropout,
    F.dropout2d,
    F.max_pool2d,
    torch.add,
    torch.cat,
    torch.flatten,
    Tensor.__add__,
    Tensor.add,
    Tensor.contiguous,
    Tensor.flatten,
    Tensor.mean,
}
"""What gives nothing negative where it takes nothing negative."""


def _unsigned(call: _Call, producers: Mapping[int, _Call]) -> bool:
    """Return whether what a call gives is known to have no number below zero."""
    if call.path is not None:
        last = producers[id(call.output)]
        # A layer that gives what it was given (dropout in evaluation) is no producer of it.
        return last is not call and _unsigned(last, producers)
    least = _argument(call, 1, "min_val", -1.0) if call.function is F.hardtanh else -1.0
    if call.function in _NOT_NEGATIVE or least == 0:  # a ReLU6 is a hard tanh from 0 to 6
        return True
    known = [producers.get(id(tensor)) for tensor in call.inputs]
    return call.function in _KEEP_THE_SIGN and all(
        one is not None and _unsigned(one, producers) for one in known
    )
