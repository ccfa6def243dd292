"""Traces a net and writes it as torch.export's program; names the layer that no format can hold.

Shapes: N images, C channels, H/W height and width.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from rootstock.common.errors import ConfigurationError

FAILURES = (RuntimeError, TypeError, ValueError)
"""What torch's exporters raise at a layer that they cannot write."""

Convert = Callable[[nn.Module, Tensor], bytes]
"""Writes a module, traced with an example input, in a format."""
Run = Callable[[Tensor], Tensor]
"""Runs a written net: takes images (N,C,H,W), gives outputs."""


def traced(net: nn.Module, example_NCHW: Tensor) -> ExportedProgram:
    """Return a net's program; N is any number, whatever the example's."""
    dynamic = ({0: Dim("batch", min=1)},)
    return torch.export.export(net, (example_NCHW,), dynamic_shapes=dynamic)


def torch_program(net: nn.Module, example_NCHW: Tensor) -> bytes:
    """Return what `torch.export.load` reads."""
    buffer = io.BytesIO()
    torch.export.save(traced(net, example_NCHW), buffer)
    return buffer.getvalue()


def opened(data: bytes) -> Run:
    """Return how to run what `torch_program` gave: bytes of our own making, not a peer's."""
    run: Run = torch.export.load(io.BytesIO(data)).module()
    return run


def converted(net: nn.Module, example_NCHW: Tensor, convert: Convert, *, format_name: str) -> bytes:
    """Write a net in a format; ConfigurationError names the layer that it cannot hold."""
    try:
        with _quiet():
            return convert(net, example_NCHW)
    except FAILURES as error:
        cause = error
    name, layer = _culprit(net, example_NCHW, convert)
    where = f"layer '{name}' ({type(layer).__name__})" if name else f"a {type(net).__name__}"
    reason = next((line for line in str(cause).splitlines() if line.strip()), type(cause).__name__)
    raise ConfigurationError(
        f"format {format_name} cannot hold {where}: {reason[:200]}; export as safetensors, which "
        "holds any layer's weights"
    ) from cause


def _culprit(net: nn.Module, example_NCHW: Tensor, convert: Convert) -> tuple[str, nn.Module]:
    """Return the first of the smallest modules that cannot be written by itself; "" for all."""
    inputs: dict[str, Tensor] = {}
    hooks = [
        module.register_forward_pre_hook(partial(_record, inputs, name))
        for name, module in net.named_modules()
        if name
    ]
    try:
        with torch.no_grad():
            net(example_NCHW)
    finally:
        for hook in hooks:
            hook.remove()
    modules = dict(net.named_modules())
    for name in sorted(inputs, key=lambda name: len(list(modules[name].modules()))):
        try:
            with _quiet():
                convert(modules[name], inputs[name])
        except FAILURES:
            return name, modules[name]
    return "", net


def _record(inputs: dict[str, Tensor], name: str, _: nn.Module, args: tuple[Any, ...]) -> None:
    if len(args) == 1 and isinstance(args[0], Tensor):
        inputs.setdefault(name, args[0])


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence what exporters print, log and warn of: the error says it in one line."""
    before = logging.root.manager.disable
    sink = io.StringIO()
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(sink),
        contextlib.redirect_stderr(sink),
    ):
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(before)
