"""A pre-trained net with proxies beside its blocks and attention over both (paper, section 3.3).

Shapes: N batch, C channels, H/W height and width, K classes, P paths into a node.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # PyTorch's own name for it

from rootstock.common.errors import TransplantError
from rootstock.common.nets.spec import Shape
from rootstock.common.nets.tailored.blocks import Proxy, UniversalBlock, total
from rootstock.common.nets.tailored.paths import Path, all_paths, name_of, remaining
from rootstock.common.nets.training import device_of

UNIVERSAL_LOGIT = 2.0
PROXY_LOGIT = -2.0
"""Attention's initial values: the net starts near the pre-trained one (paper, section 4.1)."""


class Activations(NamedTuple):
    """The activations of a net on images."""

    nodes: dict[int, Tensor]
    """(N, C, H, W) by node, from 1; nodes that were left out are not there."""
    logits: tuple[Tensor, ...]
    """What the head answers: (N, K), or one tensor for each of several tasks."""


class Stages(NamedTuple):
    """A backbone's extractor, taken apart."""

    stem: nn.Sequential
    blocks: dict[str, nn.Module]
    """By name, lowest first."""


def stages(extractor: nn.Sequential) -> Stages:
    """Take an extractor apart into a stem and torchvision's `BasicBlock`s, its last layers."""
    from torchvision.models.resnet import BasicBlock  # takes a second, which few callers need

    layers = dict(extractor.named_children())
    names = list(layers)
    residual = [name for name in names if isinstance(layers[name], BasicBlock)]
    if not residual:
        raise TransplantError(
            f"the backbone ({', '.join(names)}) has no residual blocks to prune; take a net of "
            "basic blocks, as small-resnet or resnet18"
        )
    count = len(names) - len(residual)
    if names[count:] != residual:
        raise TransplantError(
            f"the backbone's residual blocks ({', '.join(residual)}) must be its last layers; it "
            f"has {', '.join(names)}: split it at its last block"
        )
    return Stages(extractor[:count], {name: layers[name] for name in residual})


def activations(extractor: nn.Sequential, head: nn.Module, x_NCHW: Tensor) -> Activations:
    """Return what a plain net of residual blocks, a teacher, makes of images."""
    stem, blocks = stages(extractor)
    nodes = {}
    x_NCHW = stem(x_NCHW)
    for node, block in enumerate(blocks.values(), start=1):
        x_NCHW = block(x_NCHW)
        nodes[node] = x_NCHW
    return Activations(nodes, _answers(head, x_NCHW))


def _answers(head: nn.Module, x_NCHW: Tensor) -> tuple[Tensor, ...]:
    found = head(x_NCHW)
    return (found,) if isinstance(found, Tensor) else tuple(found)


class AugmentedNet(nn.Module):
    """Every block's output is ReLU(Σ_j α_j path_j), α a softmax over the paths that are kept.

    Shared by all tasks and frozen: stem and universal blocks, BatchNorm's running statistics
    included, which is why they stay in evaluation mode while the rest trains. One task's own:
    proxies with their BatchNorm, attention, head.

    The extractor is pre-trained, as `stages` wants it; the head leads from the last block's map to
    K logits, or to a tuple of logits, one a task. Both are copied. The seed is of the proxies'
    initial weights. `names` are the universal blocks', lowest first, and `kept` the paths that are
    in use.
    """

    def __init__(
        self, extractor: nn.Sequential, head: nn.Module, input_shape_CHW: Shape, *, seed: int
    ) -> None:
        super().__init__()
        stem, blocks = copy.deepcopy(stages(extractor))
        self.names = tuple(blocks)
        self.stem = stem
        self.head = copy.deepcopy(head)
        paths = all_paths(len(blocks))
        shapes = _shapes(extractor, input_shape_CHW)
        generator = torch.Generator().manual_seed(seed)
        modules: dict[str, nn.Module] = {}
        for path in paths:
            modules[self.name(path)] = (
                UniversalBlock(blocks[self.name(path)])
                if path.universal
                else Proxy(shapes[path.source], shapes[path.target], generator)
            )
        self.paths = nn.ModuleDict(modules)
        self.attention = nn.ParameterList(
            torch.tensor([UNIVERSAL_LOGIT if p.universal else PROXY_LOGIT for p in into])
            for into in (_into(paths, node) for node in self._nodes())
        )
        self._all = paths
        self.kept = frozenset(paths)
        self.train().requires_grad_()

    def name(self, path: Path) -> str:
        """Return a block's own name, or "proxy" with the block's and how far back it reads."""
        return name_of(path, self.names)

    def ordered(self) -> list[Path]:
        """Return the paths that are kept, lowest node first."""
        return [path for path in self._all if path in self.kept]

    def restricted(self, kept: Iterable[Path]) -> Self:
        """Return a copy that uses some of its paths alone; its attention is over those."""
        left = remaining(self.kept.intersection(kept), len(self.names))
        if not left:
            raise TransplantError(
                "no path is left from the stem to the last block's output; remove fewer"
            )
        net = copy.deepcopy(self)
        net.kept = left
        return net

    def alphas(self) -> dict[Path, Tensor]:
        """Return α of every path that is kept, each without a shape."""
        found: dict[Path, Tensor] = {}
        for node, logits_P in zip(self._nodes(), self.attention, strict=True):
            into = _into(self._all, node)
            places = [place for place, path in enumerate(into) if path in self.kept]
            alpha_P = logits_P[places].softmax(0)
            found |= {into[place]: alpha_P[i] for i, place in enumerate(places)}
        return found

    def activations(self, x_NCHW: Tensor) -> Activations:
        """Return every node that is in use, and logits."""
        alphas = self.alphas()
        nodes = {0: self.stem(x_NCHW)}
        for node in self._nodes():
            into = [path for path in self.ordered() if path.target == node]
            if into:
                terms_NCHW = [alphas[p] * self.paths[self.name(p)](nodes[p.source]) for p in into]
                nodes[node] = F.relu(total(terms_NCHW))
        logits = _answers(self.head, nodes[len(self.names)])
        del nodes[0]
        return Activations(nodes, logits)

    def forward(self, x_NCHW: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return (N, K) logits, or several tasks'."""
        first, *others = self.activations(x_NCHW).logits
        return (first, *others) if others else first

    def own(self) -> Iterator[nn.Parameter]:
        """Return the parameters in use that are this task's alone, but for attention's."""
        changing = self.changing()
        yield from changing["proxies"].parameters()
        yield from changing["head"].parameters()

    def changing(self) -> nn.ModuleDict:
        """Return what training changes: proxies in use, attention, head. The very modules."""
        names = [self.name(path) for path in self.ordered() if not path.universal]
        proxies = nn.ModuleDict({name: self.paths[name] for name in names})
        return nn.ModuleDict({"proxies": proxies, "attention": self.attention, "head": self.head})

    def shared(self) -> Iterator[nn.Module]:
        """Return stem and universal blocks, those that are not in use as well."""
        yield self.stem
        for name in self.names:
            yield self.paths[name]

    def train(self, mode: bool = True) -> Self:
        """Set the mode of what is the task's own; what is shared stays in evaluation mode."""
        super().train(mode)
        for module in self.shared():
            module.eval()
        return self

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Freeze or unfreeze what is the task's own; what is shared stays frozen."""
        super().requires_grad_(requires_grad)
        for module in self.shared():
            module.requires_grad_(False)
        return self

    def _nodes(self) -> range:
        return range(1, len(self.names) + 1)


def _into(paths: Iterable[Path], node: int) -> list[Path]:
    return [path for path in paths if path.target == node]


@torch.no_grad()
def _shapes(extractor: nn.Sequential, input_shape_CHW: Shape) -> list[Shape]:
    net = copy.deepcopy(extractor).eval()
    image = torch.zeros(1, *input_shape_CHW, device=device_of(net))
    maps = [stages(net).stem(image), *activations(net, nn.Identity(), image).nodes.values()]
    return [tuple(map_NCHW.shape[1:]) for map_NCHW in maps]
