"""The common parts of all trainings: rates, a step, an optimiser's state, frozen passes.

Shapes: N inputs, C channels, H/W height and width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

_BATCH = 128
"""Inputs of a frozen pass: bounds memory."""
_ELEMENTS = 256 * 3 * 64 * 64
"""Numbers in the inputs of a frozen pass."""


def device_of(module: nn.Module) -> torch.device:
    """Return where a module's weights are."""
    return next(module.parameters()).device


def mixed_precision(device: torch.device) -> torch.dtype | None:
    """Return the 16-bit type in which a device multiplies faster than in 32 bits, if it has one."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else None
    has = torch.cpu.get_capabilities()
    return torch.bfloat16 if has.get("avx512_bf16") or has.get("amx_bf16") else None


def cosine(step: int, steps: int) -> float:
    """Return a rate's factor after so many of all steps: half a cosine, from 1 down to 0."""
    return 0.5 * (1 + math.cos(math.pi * step / steps))


def descend(optimiser: torch.optim.Optimizer, loss: Tensor, rate: float | None = None) -> None:
    """Take one step down a loss.

    Gradients reach the optimiser's own parameters and nothing else. A rate holds for every group,
    times the group's "factor" if it has one; None leaves the groups' own.
    """
    if rate is not None:
        for group in optimiser.param_groups:
            group["lr"] = rate * group.get("factor", 1.0)
    optimiser.zero_grad(set_to_none=True)
    own = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    loss.backward(inputs=own)  # type: ignore[no-untyped-call]
    optimiser.step()


def optimiser_state(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return copies of all that an optimiser remembers, as <parameter's number>/<what>.

    Plain tensors, so that a checkpoint is a safetensors file and nothing is ever unpickled.
    """
    return {
        f"{number}/{key}": value.detach().clone()
        for number, state in optimiser.state_dict()["state"].items()
        for key, value in state.items()
        if isinstance(value, Tensor)
    }


def restore_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `optimiser_state` returned; ValueError if it is another optimiser's.

    Rates and other settings stay as they are.
    """
    own = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        number, _, key = name.partition("/")
        if not number.isdecimal() or int(number) >= len(own):
            raise ValueError(f"'{name}' is no state of an optimiser of {len(own)} parameters")
        if value.ndim and value.shape != own[int(number)].shape:
            raise ValueError(
                f"'{name}' has shape {tuple(value.shape)}, the parameter has "
                f"{tuple(own[int(number)].shape)}"
            )
        # Counts stay on the CPU, as torch has them; the rest follows its parameter.
        state.setdefault(int(number), {})[key] = (
            value.clone() if value.ndim else value.cpu().clone()
        )
    groups = optimiser.state_dict()["param_groups"]
    optimiser.load_state_dict({"state": state, "param_groups": groups})


@contextmanager
def watched(layers: Mapping[str, nn.Module], seen: Callable[[str, Any], None]) -> Iterator[None]:
    """Call back with a layer's name and its output, as it is finished."""
    handles = [
        layer.register_forward_hook(lambda _layer, _x, output, name=name: seen(name, output))
        for name, layer in layers.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return named tensors with a prefix before each name."""
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return those named tensors that have a prefix, without it."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def some(count: int, generator: torch.Generator, *tensors: Tensor) -> tuple[Tensor, ...]:
    """Return the same rows of tensors: so many of them, drawn once each, or all that there are."""
    if count >= len(tensors[0]):
        return tensors
    chosen = torch.randperm(len(tensors[0]), generator=generator)[:count]
    return tuple(tensor[chosen.to(tensor.device)] for tensor in tensors)


def at_once(x_NCHW: Tensor, most: int) -> int:
    """Return how many inputs go through a net together where nothing is learned.

    A net's maps are some 40 times its input, and a layer holds two of them: of 256 images of 224
    pixels several gigabytes. At 64 pixels as many are some hundred megabytes, so many bytes of
    larger ones are as much.
    """
    return max(1, min(most, _ELEMENTS // max(1, x_NCHW[0].numel()))) if len(x_NCHW) else most


@torch.no_grad()
def in_batches(module: nn.Module, x_NCHW: Tensor) -> Tensor:
    """Return a frozen module's output, a bounded number of inputs at a time, on x's device."""
    device = next((weight.device for weight in module.parameters()), x_NCHW.device)
    parts = torch.split(x_NCHW, at_once(x_NCHW, _BATCH))
    return torch.cat([module(part.to(device)).to(x_NCHW) for part in parts])
