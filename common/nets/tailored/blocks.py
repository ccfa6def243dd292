"""The modules of a tailored extractor: blocks and lean proxies for them (paper, section 3.3).

Shapes: N batch, C channels, O out-channels, H/W height and width.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # PyTorch's own name for it
from torch.nn.utils.fusion import fuse_conv_bn_eval

from rootstock.common.errors import TransplantError
from rootstock.common.nets.spec import Shape
from rootstock.common.nets.tailored.paths import Path

LAYER = "tailored"
"""The layer of an extractor that holds all nodes: paths between them go over others' heads."""
PROXY_STD = 0.01
"""Standard deviation of a proxy's initial weights."""


class UniversalBlock(nn.Module):
    """A pre-trained residual block without its last ReLU, as it is for every task.

    Its weights and its BatchNorm's running statistics are the backbone's and are shared by all
    tasks: the owner freezes it and keeps it in evaluation mode. The layers of `block`,
    torchvision's `BasicBlock`, are used as they are, not copied.
    """

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        layers: Any = block
        self.conv1, self.bn1, self.relu = layers.conv1, layers.bn1, layers.relu
        self.conv2, self.bn2 = layers.conv2, layers.bn2
        self.downsample = nn.Identity() if layers.downsample is None else layers.downsample

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Return (N, O, H/stride, W/stride), of any sign."""
        inner = self.relu(self.bn1(self.conv1(x_NCHW)))
        out: Tensor = self.bn2(self.conv2(inner)) + self.downsample(x_NCHW)
        return out


def pooling(stride: int) -> nn.MaxPool2d:
    """Return the max-pooling of a proxy that leads to a smaller map."""
    return nn.MaxPool2d(stride + 1, stride, stride // 2)


class Proxy(nn.Sequential):
    """Max-pooling where maps shrink, a 1×1 convolution without bias, BatchNorm.

    All of it, BatchNorm's statistics included, belongs to one task. It reads a map of one shape and
    approximates one of the other; the generator draws its weights from N(0, 0.01²).
    """

    def __init__(self, source_CHW: Shape, target_CHW: Shape, generator: torch.Generator) -> None:
        (channels, *size), (out_channels, *out_size) = source_CHW, target_CHW
        stride = size[0] // out_size[0]
        if size != [stride * side for side in out_size]:
            raise TransplantError(
                f"no proxy leads from a map of {size[0]}×{size[1]} to one of "
                f"{out_size[0]}×{out_size[1]}: the first must be a whole number of times as large; "
                "choose another input size"
            )
        with torch.random.fork_rng(devices=[]):
            conv = nn.Conv2d(channels, out_channels, 1, bias=False)
        nn.init.normal_(conv.weight, std=PROXY_STD, generator=generator)
        pool = [pooling(stride)] if stride > 1 else []
        super().__init__(*pool, conv, nn.BatchNorm2d(out_channels))
        self.stride = stride

    @torch.no_grad()
    def folded(self, alpha: Tensor) -> nn.Conv2d:
        """Return one 1×1 convolution with bias that does as convolution, BatchNorm and α do.

        BatchNorm in evaluation mode; what is returned has weights of its own.
        """
        *_, conv, norm = copy.deepcopy(self).eval()
        assert isinstance(conv, nn.Conv2d)  # noqa: S101  # built so
        assert isinstance(norm, nn.BatchNorm2d)  # noqa: S101
        fused = fuse_conv_bn_eval(conv, norm)
        for parameter in fused.parameters():
            parameter.mul_(alpha)
        return fused


def total(terms_NCHW: Sequence[Tensor]) -> Tensor:
    """Return the sum of maps, one added to the other: a stack of them would be copied first."""
    return functools.reduce(torch.add, terms_NCHW)


class Term(NamedTuple):
    """The module on one path, and how its output enters the node that the path merges into."""

    path: Path
    name: str
    module: UniversalBlock | nn.Conv2d
    """A proxy is one 1×1 convolution, BatchNorm and α folded into it."""
    stride: int = 1
    """A proxy's max-pooling has it."""
    alpha: Tensor | None = None
    """A universal block's weight, without a shape."""


class TailoredBlocks(nn.Module):
    """All nodes above a stem: ReLU(Σ α block + Σ proxies) over the paths that are there.

    Proxies that read one node at one stride share its max-pooling. Terms come lowest node first;
    their modules are used as they are, not copied.
    """

    def __init__(self, terms: Iterable[Term]) -> None:
        super().__init__()
        self.blocks, self.proxies, self.pools = nn.ModuleDict(), nn.ModuleDict(), nn.ModuleDict()
        self._into: dict[int, list[tuple[Path, str, str]]] = {}
        for path, name, module, stride, alpha in terms:
            pool = ""
            if path.universal:
                self.blocks[name] = module
                self.register_buffer(f"alpha_{name}", torch.ones(()) if alpha is None else alpha)
            else:
                self.proxies[name] = module
                if stride > 1:
                    pool = f"pool{path.source}_{stride}"
                    self.pools[pool] = pooling(stride)
            self._into.setdefault(path.target, []).append((path, name, pool))

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Return the last node's map, from the stem's."""
        nodes = {0: x_NCHW}
        pooled: dict[str, Tensor] = {}
        for node, into in self._into.items():
            terms_NCHW = []
            for path, name, pool in into:
                read_NCHW = nodes[path.source]
                if path.universal:
                    alpha = self.get_buffer(f"alpha_{name}")
                    terms_NCHW.append(alpha * self.blocks[name](read_NCHW))
                    continue
                if pool:
                    if pool not in pooled:
                        pooled[pool] = self.pools[pool](read_NCHW)
                    read_NCHW = pooled[pool]
                terms_NCHW.append(self.proxies[name](read_NCHW))
            nodes[node] = F.relu(total(terms_NCHW))
        return nodes[max(nodes)]
