"""The layer of a tailored extractor that holds its nodes and the paths that lead to them.

Shapes: N batch, C channels, H/W height and width.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # PyTorch's own name for it

from rootstock.common.nets.tailored.blocks import UniversalBlock, pooling, total
from rootstock.common.nets.tailored.paths import Path

LAYER = "tailored"
"""The layer of an extractor that holds all nodes: paths between them go over others' heads."""


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
