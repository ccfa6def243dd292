"""Small backbones with statistics and weights that are not a fresh net's."""

from __future__ import annotations

import torch
from torch import nn

from rootstock.common.nets.architectures import build_category_module, build_head
from rootstock.common.nets.spec import ArchitectureSpec
from rootstock.common.nettailor.augmented import AugmentedNet

SHAPE = (3, 32, 32)
CLASSES = 4


def backbone(blocks: int = 1, width: int = 4) -> tuple[nn.Sequential, nn.Sequential]:
    spec = ArchitectureSpec(
        name="small-resnet", split=f"block3_{blocks}", settings={"blocks": blocks, "width": width}
    )
    f, g = build_category_module(spec), build_head(spec, CLASSES)
    stir(nn.Sequential(f, g))
    return f.eval(), g.eval()


def stir(net: nn.Module, seed: int = 0) -> None:
    """Give every layer weights, and BatchNorm statistics, of a net that has learned."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in net.modules():
            if isinstance(layer, nn.Conv2d):
                layer.weight.normal_(std=0.2, generator=generator)
            if isinstance(layer, nn.Linear):
                layer.weight.normal_(std=0.3, generator=generator)
                layer.bias.normal_(std=0.3, generator=generator)
            if isinstance(layer, nn.BatchNorm2d):
                layer.weight.uniform_(0.5, 1.5, generator=generator)
                layer.bias.normal_(std=0.2, generator=generator)
                layer.get_buffer("running_mean").normal_(std=0.3, generator=generator)
                layer.get_buffer("running_var").uniform_(0.5, 2, generator=generator)


def augmented(blocks: int = 1, seed: int = 0) -> AugmentedNet:
    return AugmentedNet(*backbone(blocks), SHAPE, seed=seed)


def images(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(seed))
