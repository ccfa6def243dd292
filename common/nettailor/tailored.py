"""A tailored net as it is used: what was left out is gone, nothing is masked.

Shapes: N batch, C channels, H/W height and width, K classes.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # PyTorch's own name for it

from common.nettailor.augmented import AugmentedNet, total
from common.nettailor.blocks import Proxy
from common.nettailor.complexity import flops
from common.nettailor.measures import parameters
from common.nettailor.paths import Path

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
    BatchNorm and α are folded, the blocks' α, and the head.

    Proxies that read one node at one stride share its max-pooling.

    Parameters
    ----------
    net
        Pruned. Copied; what comes out is in evaluation mode.
    """

    def __init__(self, net: AugmentedNet) -> None:
        super().__init__()
        self.names = {path: net.name(path) for path in net.ordered()}
        self.nodes = len(net.names)
        self.stem = copy.deepcopy(net.stem)
        self.head = copy.deepcopy(net.head)
        self.blocks, self.proxies, self.pools = nn.ModuleDict(), nn.ModuleDict(), nn.ModuleDict()
        self._into: dict[int, list[tuple[Path, str, str]]] = {}
        self.alphas: dict[str, float] = {}
        for path, alpha in net.alphas().items():
            name, module, pool = self.names[path], net.paths[net.name(path)], ""
            if isinstance(module, Proxy):
                self.proxies[name] = module.folded(alpha)
                if module.stride > 1:
                    pool = f"pool{path.source}_{module.stride}"
                    self.pools[pool] = copy.deepcopy(module[0])
            else:
                self.blocks[name] = copy.deepcopy(module)
                self.register_buffer(f"alpha_{name}", alpha.detach().clone())
            self.alphas[name] = float(alpha.detach())
            self._into.setdefault(path.target, []).append((path, name, pool))
        self.eval().requires_grad_(False)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Return (N, K) logits."""
        nodes = {0: self.stem(x_NCHW)}
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
        logits_NK: Tensor = self.head(nodes[self.nodes])
        return logits_NK


@dataclass(frozen=True)
class Card:
    """What is to be known about a tailored net; shares and what is removed in percent."""

    alphas: dict[str, float]
    """By the name of the path, those that were kept."""
    blocks: int
    """Universal blocks of the backbone."""
    blocks_removed: int
    parameters: int
    own_parameters: int
    """Of this task alone, α among them; the others are in the backbone already."""
    params_removed: float
    """Below 0: more were added than left out."""
    flops_removed: float
    new_params_share: float
    """The task's own parameters, by all of the backbone's."""
    shared_statistics: str = SHARED_STATISTICS
    own_statistics: str = OWN_STATISTICS


def card(net: TailoredNet, original: nn.Module, x_NCHW: Tensor) -> Card:
    """Describe a tailored net beside the net that it was tailored from.

    Parameters
    ----------
    net
        Tailored.
    original
        The backbone with a head for the task, in evaluation mode.
    x_NCHW
        Images of the size to count FLOPs for.
    """
    shared = parameters(net.stem) + parameters(net.blocks)
    own = parameters(net) - shared + len(net.blocks)
    whole = parameters(original)
    return Card(
        alphas=net.alphas,
        blocks=net.nodes,
        blocks_removed=net.nodes - len(net.blocks),
        parameters=shared + own,
        own_parameters=own,
        params_removed=100 * (1 - (shared + own) / whole),
        flops_removed=100 * (1 - flops(net, x_NCHW) / flops(original, x_NCHW)),
        new_params_share=100 * own / whole,
    )
