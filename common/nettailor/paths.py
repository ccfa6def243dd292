"""The graph of a tailored net, and which of its paths can be left out (paper, section 3.4.1).

Nodes are feature maps: 0 is the stem's, B the last of B residual blocks'. A path leads from one
node to a later one; what merges into a node is pooled there.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

SKIPS = 3
"""Proxies that merge into a node at most (paper, section 4.1)."""


class Path(NamedTuple):
    """One path of the graph."""

    target: int
    """The node that it merges into, from 1."""
    skip: int
    """0: the universal block; j ≥ 1: the proxy that reads j − 1 nodes before the block's input."""

    @property
    def source(self) -> int:
        """Return the node that it departs from."""
        return self.target - max(self.skip, 1)

    @property
    def universal(self) -> bool:
        """Return whether it is a pre-trained block."""
        return self.skip == 0


def all_paths(nodes: int, skips: int = SKIPS) -> tuple[Path, ...]:
    """Return the universal block and the proxies of every node, lowest node first.

    Parameters
    ----------
    nodes
        B, residual blocks.
    skips
        Proxies a node; lower nodes have as many as there are nodes below them.
    """
    return tuple(
        Path(target, skip)
        for target in range(1, nodes + 1)
        for skip in range(min(skips, target) + 1)
    )


def self_excluded(path: Path, kept: Iterable[Path]) -> bool:
    """Return whether a path is itself left out (paper, figure 3a)."""
    return path not in kept


def input_excluded(path: Path, kept: Iterable[Path]) -> bool:
    """Return whether nothing merges into the node that a path reads (paper, figure 3b).

    The stem is always there.
    """
    return path.source != 0 and all(other.target != path.source for other in kept)


def output_excluded(path: Path, kept: Iterable[Path], nodes: int) -> bool:
    """Return whether nothing reads the node that a path merges into (paper, figure 3c).

    The last node is always read, by the classifier.
    """
    return path.target != nodes and all(other.source != path.target for other in kept)


def remaining(kept: Iterable[Path], nodes: int) -> frozenset[Path]:
    """Apply the three rules until nothing changes: one path left out may strand others.

    Parameters
    ----------
    kept
        Paths that are not themselves left out.
    nodes
        B, residual blocks.

    Returns
    -------
    The paths that lie between the stem and the last node. Empty: these are cut apart.
    """
    left = frozenset(kept)
    while True:
        stranded = {
            path
            for path in left
            if input_excluded(path, left) or output_excluded(path, left, nodes)
        }
        if not stranded:
            return left
        left -= stranded
