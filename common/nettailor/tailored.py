"""A tailored net as it is used: what was left out is not there, nothing is masked.

Shapes: N batch, C channels, H/W height and width, K classes.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from dataclasses import dataclass

from torch import Tensor, nn

from rootstock.common.nets.tailored.blocks import LAYER, Proxy, TailoredBlocks, Term, UniversalBlock
from rootstock.common.nets.tailored.paths import Path
from rootstock.common.nettailor.augmented import AugmentedNet
from rootstock.common.nettailor.learning import flops, parameters

SHARED_STATISTICS = (
    "stem and universal blocks normalise by the backbone's running statistics, which are frozen "
    "and the same for every task"
)
OWN_STATISTICS = (
    "proxies normalise by running statistics of this task's images, folded into their convolutions"
)


class TailoredNet(nn.Module):
    """The paths that an augmented net kept, and nothing else.

    Shared by all tasks, and equal to the backbone's to the last bit: stem and universal blocks,
    BatchNorm's running statistics included. One task's own: proxies, into whose convolutions their
    BatchNorm and α are folded, the blocks' α, and the head. The pruned net is copied; what comes
    out is in evaluation mode.

    The extractor is the stem's layers and `LAYER`: what architecture "tailored-resnet" builds for
    these paths. `names` are those of the paths that were kept, `alphas` go by them, and
    `blocks_before` counts the universal blocks of the backbone.
    """

    def __init__(self, net: AugmentedNet) -> None:
        super().__init__()
        self.names = {path: net.name(path) for path in net.ordered()}
        self.blocks_before = len(net.names)
        alphas = {path: alpha.detach().clone() for path, alpha in net.alphas().items()}
        self.alphas = {self.names[path]: float(alpha) for path, alpha in alphas.items()}
        terms = (_term(net, path, alpha) for path, alpha in alphas.items())
        stem = copy.deepcopy(net.stem)
        self.extractor = nn.Sequential(
            OrderedDict([*stem.named_children(), (LAYER, TailoredBlocks(terms))])
        )
        self.head = copy.deepcopy(net.head)
        self.eval().requires_grad_(False)

    @property
    def blocks(self) -> nn.ModuleDict:
        """Return the universal blocks that were kept, by name."""
        tailored = self.extractor[-1]
        assert isinstance(tailored, TailoredBlocks)  # noqa: S101  # built so
        return tailored.blocks

    def forward(self, x_NCHW: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return (N, K) logits, or several tasks'."""
        logits: Tensor | tuple[Tensor, ...] = self.head(self.extractor(x_NCHW))
        return logits


def _term(net: AugmentedNet, path: Path, alpha: Tensor) -> Term:
    name = net.name(path)
    module = net.paths[name]
    if isinstance(module, Proxy):
        return Term(path, name, module.folded(alpha), module.stride)
    assert isinstance(module, UniversalBlock)  # noqa: S101  # built so
    return Term(path, name, copy.deepcopy(module), alpha=alpha)


@dataclass(frozen=True)
class Card:
    """Facts about a tailored net; shares and reductions in percent."""

    alphas: dict[str, float]
    """By the name of the path, those that were kept."""
    blocks: int
    """Universal blocks of the backbone."""
    blocks_removed: int
    parameters: int
    own_parameters: int
    """Those of this task alone, α among them; the others are in the backbone already."""
    params_removed: float
    """Below 0: more were added than left out."""
    flops_removed: float
    new_params_share: float
    """The task's own parameters, by all of the backbone's."""
    shared_statistics: str = SHARED_STATISTICS
    own_statistics: str = OWN_STATISTICS


def card(net: TailoredNet, original: nn.Module, x_NCHW: Tensor) -> Card:
    """Describe a tailored net beside the net that it was tailored from.

    `original` is the backbone with a head for the task, in evaluation mode; FLOPs are counted for
    images of the size of `x_NCHW`.
    """
    shared = parameters(net.extractor[:-1]) + parameters(net.blocks)
    own = parameters(net) - shared + len(net.blocks)
    whole = parameters(original)
    return Card(
        alphas=net.alphas,
        blocks=net.blocks_before,
        blocks_removed=net.blocks_before - len(net.blocks),
        parameters=shared + own,
        own_parameters=own,
        params_removed=100 * (1 - (shared + own) / whole),
        flops_removed=100 * (1 - flops(net, x_NCHW) / flops(original, x_NCHW)),
        new_params_share=100 * own / whole,
    )
