"""Whether a written net answers as the composed one does.

Shapes: N images, C channels, H/W height and width.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from rootstock.common.errors import IntegrityError
from rootstock.common.nets.spec import Shape
from rootstock.common.weights.card import Parity

TOLERANCE = 1e-4
RANDOM_IMAGES = 5
"""Another number than the example has that a net is traced with."""

Run = Callable[[Tensor], Tensor]
"""Takes images (N,C,H,W), gives outputs."""


def compared(net: nn.Module, run: Run, shape: Shape, real_NCHW: Tensor | None) -> Parity:
    """Hold a written net against the composed one on random images, and on real ones if given.

    Raises IntegrityError if outputs differ by more than the tolerance, or have another shape.
    """
    generator = torch.Generator().manual_seed(0)
    random_NCHW = torch.randn(RANDOM_IMAGES, *shape, generator=generator)
    return Parity(
        tolerance=TOLERANCE,
        random_images=RANDOM_IMAGES,
        random_difference=_difference(net, run, random_NCHW, "random"),
        real_images=0 if real_NCHW is None else len(real_NCHW),
        real_difference=None if real_NCHW is None else _difference(net, run, real_NCHW, "real"),
    )


@torch.no_grad()
def _difference(net: nn.Module, run: Run, images_NCHW: Tensor, kind: str) -> float:
    wanted: Tensor = net(images_NCHW)
    given = run(images_NCHW)
    if given.shape != wanted.shape:
        raise IntegrityError(
            f"the written net gives {list(given.shape)} for {kind} images, the composed one "
            f"{list(wanted.shape)}; export as safetensors"
        )
    difference = float(((given - wanted).abs() / wanted.abs().clamp(min=1)).max())
    if not difference <= TOLERANCE:
        raise IntegrityError(
            f"the written net's outputs for {kind} images differ from the composed one's by "
            f"{difference:.2g}, the tolerance is {TOLERANCE:g}; export as safetensors"
        )
    return difference
