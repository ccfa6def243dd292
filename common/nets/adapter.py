"""The adapter h between a category module f and a task module g (paper, section 4, figure 4c).

Shapes: N batch, C channels of x = f(I), M channels of h(x) (what g takes), H/W height and width.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Self

import torch
from torch import Tensor, nn

from rootstock.common.errors import TransplantError
from rootstock.common.nets.spec import AdapterSpec


class Adapter(nn.Module):
    """Reorder → rescale by β → n × (conv + ReLU). The size of the feature map stays as it is.

    The convolutions and their ReLUs, `convs`, are named conv1, relu1, conv2, …. The first takes C
    to M channels, the others M to M; each pads so that height and width stay. A signed adapter has
    no ReLU after its last convolution.
    """

    permutation: Tensor
    """(C) int64 buffer: channel c of the reordered map is channel permutation[c] of x. Identity by
    default; the paper shuffles here to make the test hard."""
    beta: Tensor
    """() float32 buffer: β = E‖f_S(I)‖_F / E‖f(I)‖_F, 1 by default. It gives h(x) the magnitude
    that g is used to."""

    def __init__(self, spec: AdapterSpec) -> None:
        super().__init__()
        self.spec = spec
        self.register_buffer("permutation", torch.arange(spec.in_channels))
        self.register_buffer("beta", torch.ones(()))
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        with torch.random.fork_rng(devices=[]):  # building draws values; nobody else's change
            for place in range(1, spec.convs + 1):
                layers[f"conv{place}"] = nn.Conv2d(
                    spec.in_channels if place == 1 else spec.out_channels,
                    spec.out_channels,
                    spec.kernel,
                    padding=spec.kernel // 2,
                )
                if place < spec.convs or not spec.signed:
                    layers[f"relu{place}"] = nn.ReLU()
        self.convs = nn.Sequential(layers)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Return h(x), of shape (N, M, H, W)."""
        output: Tensor = self.convs(self.beta * x_NCHW[:, self.permutation])
        return output

    def identity_start(self) -> Self:
        """Set every convolution to the Dirac kernel and every bias to zero; return the adapter.

        Features after a ReLU are not negative, so Dirac convolutions pass them on unchanged
        (METHODS 1c): h(x) is then the reordered, rescaled x, cut or zero-filled to M channels. So
        does a signed adapter of one convolution; with more, a ReLU between them cuts what is
        negative.
        """
        with torch.no_grad():
            for conv in self.convolutions():
                nn.init.dirac_(conv.weight)
                nn.init.zeros_(conv.bias)  # type: ignore[arg-type]  # built with a bias
        return self

    def random_start(self, generator: torch.Generator) -> Self:
        """Draw every convolution from He's normal distribution, biases zero; return the adapter.

        The start of the paper's baselines.
        """
        with torch.no_grad():
            for conv in self.convolutions():
                deviation = (2 / conv.weight[0].numel()) ** 0.5
                values = torch.randn(conv.weight.shape, generator=generator) * deviation
                conv.weight.copy_(values)
                nn.init.zeros_(conv.bias)  # type: ignore[arg-type]  # built with a bias
        return self

    def set_permutation(self, permutation_C: Tensor) -> Self:
        """Set the reorder layer; return the adapter."""
        channels = self.spec.in_channels
        if sorted(permutation_C.tolist()) != list(range(channels)):
            raise TransplantError(
                f"the reorder layer needs each of the {channels} channels exactly once; "
                "give a permutation, such as torch.randperm's"
            )
        self.permutation.copy_(permutation_C)
        return self

    def convolutions(self) -> list[nn.Conv2d]:
        """Return the convolutions, lowest first."""
        return [layer for layer in self.convs if isinstance(layer, nn.Conv2d)]
