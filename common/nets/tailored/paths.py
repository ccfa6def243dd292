"""The graph of a tailored net, and which of its paths can be left out (paper, section 3.4.1).

Nodes are feature maps: 0 is the stem's, B the last of B residual blocks'. A path leads from one
node to a later one; what merges into a node is pooled there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import NamedTuple

from rootstock.common.errors import SchemaError

SKIPS = 3
"""Proxies that merge into a node at most (paper, section 4.1)."""
MAX_TEXT = 512
"""Characters of a text of paths; 27 blocks with all their proxies take 214."""
_NODE = re.compile(r"([1-9][0-9]?):([0-9]{1,4})")


KeptPath = tuple[int, int, float]
"""(target, skip, α) of a path that was kept; see `Path`."""


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
    """Return the universal block and up to `skips` proxies of every node, lowest node first.

    Lower nodes have as many proxies as there are nodes below them.
    """
    return tuple(
        Path(target, skip)
        for target in range(1, nodes + 1)
        for skip in range(min(skips, target) + 1)
    )


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
    """Apply the rules of exclusion until nothing changes: one path left out may strand others.

    Returns the paths that lie between the stem and the last of `nodes` residual blocks, of those
    that are not themselves left out (paper, figure 3a). Empty: stem and last node are cut apart.
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


def name_of(path: Path, blocks: Sequence[str]) -> str:
    """Return a block's own name, or "proxy" with the block's and how far back it reads."""
    block = blocks[path.target - 1]
    return block if path.universal else f"proxy{path.skip}_{block}"


def text_of(paths: Iterable[Path]) -> str:
    """Return the one text that names these paths: "1:01 3:02" is (1, 0), (1, 1), (3, 0), (3, 2).

    A word a node, the lowest first: the node, and the skips of the paths that merge into it.
    """
    words = groupby(sorted(set(paths)), key=lambda path: path.target)
    return " ".join(f"{node}:{''.join(str(path.skip) for path in into)}" for node, into in words)


def from_text(text: str, nodes: int) -> tuple[Path, ...]:
    """Read what `text_of` writes. A peer supplies it.

    Of the `nodes` residual blocks that there are, the last that is named is the net's last.
    """
    if len(text) > MAX_TEXT:
        raise SchemaError(f"paths have {len(text)} characters; {MAX_TEXT} are the most")
    found = [path for word in text.split(" ") for path in _merging(word, nodes)]
    if text_of(found) != text:
        raise SchemaError(
            f"paths '{text}': nodes rise from word to word, skips within a word, and none comes "
            f"twice; write '{text_of(found)}'"
        )
    left = remaining(found, found[-1].target)
    for path in found:
        if path not in left:
            raise SchemaError(
                f"paths '{text}': '{text_of([path])}' does not lie between the stem (node 0) and "
                f"the last node, {found[-1].target}; leave it out, as nothing reads it or nothing "
                "feeds it"
            )
    return tuple(found)


def _merging(word: str, nodes: int) -> list[Path]:
    match = _NODE.fullmatch(word)
    if match is None:
        raise SchemaError(
            f"paths: '{word[:40]}' is not NODE:SKIPS, as '3:02': node 3, its block (0) and the "
            "proxy that skips 2; words are parted by one space"
        )
    target = int(match[1])
    if target > nodes:
        raise SchemaError(f"paths: '{word}': there is no node {target}; the backbone has {nodes}")
    paths = [Path(target, int(skip)) for skip in match[2]]
    highest = min(SKIPS, target)
    for path in paths:
        if path.skip > highest:
            raise SchemaError(
                f"paths: '{word}': no path into node {target} skips {path.skip}; 0 (the block) to "
                f"{highest} are there"
            )
    return paths
