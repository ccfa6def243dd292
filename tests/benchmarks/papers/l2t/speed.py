"""Time and memory of the meta-networks' gradient: as it is used, and unrolled in the plain form.

Plain: source maps are enlarged and r_θ made of the target's, and one graph holds all virtual steps.
Each way's peak memory is read in a fresh process of its own: run as a module, this file is it.

Shapes: N images, C channels, S side, K channels of all pairs side by side.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F  # noqa: N812  # PyTorch's own name for it

from rootstock.common.errors import TransplantError
from rootstock.common.l2t.bilevel import Tensors, gradient
from rootstock.common.l2t.distances import resized
from rootstock.common.l2t.matching import Matching, MetaNetworks, all_to_all, matching_loss
from rootstock.common.l2t.student import Run, Student, readable
from rootstock.common.l2t.taps import Source
from rootstock.common.l2t.transfer import BETA, Transfer
from rootstock.common.nets.architectures import (
    build_category_module,
    build_head,
    initialise,
    input_shape,
)
from rootstock.common.nets.spec import ArchitectureSpec
from tests.benchmarks.harness.memory import peak_of, print_peak
from tests.benchmarks.harness.timing import in_turns
from tests.oracles.unrolled import unrolled

SOURCE = ArchitectureSpec(name="small-resnet", split="block2_1", settings={"blocks": 1})
TARGET = ArchitectureSpec(name="small-vgg", split="pool2")
STEPS = (1, 2, 3)
"""T."""
_CLASSES = 10
_MAX_DISAGREEMENT = 1e-8
"""‖a − b‖ / ‖b‖ of the two ways' gradients in float64; more, and a row would compare two things. In
float32 a ReLU near 0 may fall on either side."""
_COMPARED = 4
"""Images that the ways are compared on."""


class Case:
    """One minibatch of noise, a ResNet-8 as source and a small VGG as target, all-to-all."""

    def __init__(self, steps: int, images: int, dtype: torch.dtype = torch.float32) -> None:
        shape = input_shape(TARGET)
        f, g = (build(TARGET) for build in (build_category_module, _head))
        heads = {"classes": initialise(g, 3)}
        layers = [*build_category_module(SOURCE).named_children(), *_head(SOURCE).named_children()]
        source = Source(initialise(nn.Sequential(OrderedDict(layers)), 1), None, shape)
        shapes = {"source": source.shapes}
        target = readable(initialise(f, 2), heads, shape)
        self._matching = Matching(all_to_all(shapes, target), shapes, target)
        torch.manual_seed(4)
        self._student = Student(f, heads, self._matching.layers()).eval()  # without dropout
        metas = MetaNetworks(self._matching.channels)
        for module in (source, self._student, metas):
            module.to(dtype).to(memory_format=torch.channels_last)
        theta = torch.optim.SGD(self._student.parameters(), lr=1e-3, momentum=0.9)
        self._transfer = Transfer(
            self._student, {"source": source}, self._matching, metas, theta, None, inner_steps=steps
        )
        self._sizes = {layer: target.shapes[layer][1:] for layer in target.ends}
        x_NCSS = torch.randn(images, *shape, dtype=dtype)
        self._x_NCSS = x_NCSS.to(memory_format=torch.channels_last)
        self._classes_N = torch.randint(_CLASSES, (images,))
        self._features = source(self._x_NCSS).features
        with torch.no_grad():
            pooled = self._matching.pooled({"source": self._features})
            self._weights_NK = metas(pooled).product()

    def used(self) -> Tensor:
        """Return the gradient to the weights (N, K) as training takes it."""
        wanted = self._matching.wanted({"source": self._features})
        ahead = self._transfer.lookahead(self._x_NCSS, wanted, self._loss)
        return gradient(ahead, self._weights_NK)

    def plain(self) -> Tensor:
        """Return it with every map made, and the steps unrolled."""
        leaf_NK = self._weights_NK.clone().requires_grad_()
        maps: dict[str, list[Tensor]] = {}
        for pair in self._matching.pairs:
            enlarged = resized(self._features[pair.layer], self._sizes[pair.target])
            maps.setdefault(pair.target, []).append(enlarged)

        def matching(theta: Tensors, weights_NK: Tensor) -> Tensor:
            run: Run = functional_call(self._student, theta, (self._x_NCSS,), {"to_end": False})
            found = []
            for place, (layer, wanted) in enumerate(maps.items()):
                weight, bias = (theta[f"regressors.{place}.{what}"] for what in ("weight", "bias"))
                projected_NSHW = F.conv2d(run.features[layer], weight, bias)
                found.append((projected_NSHW - torch.cat(wanted, 1)).square().mean((2, 3)))
            return BETA * matching_loss(torch.cat(found, 1), weights_NK)

        ahead = self._transfer.lookahead(self._x_NCSS, (), self._loss)
        last = unrolled(replace(ahead, matching=matching), leaf_NK)
        found_NK: Tensor = torch.autograd.grad(last, leaf_NK)[0]
        return found_NK

    def _loss(self, outputs: Mapping[str, Tensor]) -> Tensor:
        return F.cross_entropy(outputs["classes"], self._classes_N)


WAYS = {"used": Case.used, "plain": Case.plain}


def measure(*, images: int = 64, rounds: int = 3) -> list[dict[str, Any]]:
    """Return a row for every T."""
    rows = []
    for steps in STEPS:
        small = Case(steps, _COMPARED, torch.float64)
        found, expected = small.used(), small.plain()
        error = float((found - expected).norm() / expected.norm())
        if not error <= _MAX_DISAGREEMENT:
            raise TransplantError(
                f"T = {steps}: the gradient that is used and the unrolled one differ by "
                f"{error:.1e} of it; run tests/unit/common/l2t"
            )
        case = Case(steps, images)
        used, plain = in_turns([case.used, case.plain], rounds)
        peaks = {way: peak_of(__name__, way, str(steps), str(images)) for way in WAYS}
        rows.append(
            {
                "inner_steps": steps,
                "images": images,
                "seconds": round(used, 3),
                "plain_seconds": round(plain, 3),
                "speedup": round(plain / used, 2),
                "peak_bytes": peaks["used"],
                "plain_peak_bytes": peaks["plain"],
                "memory_ratio": round(peaks["plain"] / max(1, peaks["used"]), 2),
                "gradient_disagreement": error,
            }
        )
    return rows


def _head(spec: ArchitectureSpec) -> nn.Sequential:
    return build_head(spec, _CLASSES)


def main(way: str, steps: int, images: int) -> None:
    """Be the process of one way."""
    WAYS[way](Case(1, 2))  # what libraries set up once is not a step's memory
    case = Case(steps, images)
    print_peak(lambda: WAYS[way](case))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
