"""Leaving paths out, and the search for the leanest net that is good enough (section 3.5)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice

from torch import Tensor

from rootstock.common.nets.tailored.paths import Path, remaining
from rootstock.common.nettailor.augmented import AugmentedNet

PROXY_THRESHOLD = 0.05
"""Proxies with α up to this are left out (paper, section 3.5)."""
THINNING = (PROXY_THRESHOLD, 0.1, 0.15, 0.2, 0.25, 0.3)
"""Rising thresholds, tried in turn on the leanest net: proxies are a task's own parameters."""
CANDIDATES = 3
"""Blocks, the faintest first, that a net is tried without before the search ends."""
ROUNDS = 4
"""Tunings, one after the other, that a net above the bar gets before it is given up."""
Tune = Callable[[AugmentedNet, int, int], None]
"""Trains a pruned net in place, without the cost of complexity.

It gets how many nets were tried before, and how many times this one was tuned."""


def thinned(
    alphas: Mapping[Path, Tensor], nodes: int, *, threshold: float = PROXY_THRESHOLD
) -> frozenset[Path]:
    """Return the paths that are left without faint proxies, those with α up to a threshold.

    The rules of exclusion are applied over the `nodes` residual blocks; empty if stem and last node
    are cut apart.
    """
    bright = (p for p in alphas if p.universal or float(alphas[p]) > threshold)
    return remaining(bright, nodes)


def leaner(
    alphas: Mapping[Path, Tensor], nodes: int, *, threshold: float = PROXY_THRESHOLD
) -> Iterator[frozenset[Path]]:
    """Yield the paths that are left without one universal block more, and without faint proxies.

    First without the block of lowest α, of equal ones the lowest; then without the next. None
    whose absence cuts stem and last node apart; parameters as `thinned`.
    """
    bright = thinned(alphas, nodes, threshold=threshold)
    yielded: set[frozenset[Path]] = {frozenset()}
    for block in sorted((p for p in bright if p.universal), key=lambda p: (float(alphas[p]), p)):
        left = remaining(bright - {block}, nodes)
        if left not in yielded:
            yielded.add(left)
            yield left


@dataclass(frozen=True)
class Try:
    """One net of the search."""

    blocks: int
    """Universal blocks that are left out."""
    proxies: int
    """Proxies that are kept."""
    error: float
    """In percent, after its last tuning."""


@dataclass(frozen=True)
class SearchResult:
    """The result of the search."""

    net: AugmentedNet
    met: bool
    """Whether its error is within the tolerance. If not, the net is the full one."""
    error: float
    """In percent, on the images that the search was judged on."""
    tries: tuple[Try, ...]
    """In the order in which they were tuned."""


def search(
    student: AugmentedNet, bar: float, tune: Tune, error: Callable[[AugmentedNet], float]
) -> SearchResult:
    """Return the leanest net found whose error is at most a bar.

    Blocks are left out one after the other, and each leaner net begins with the weights and α that
    the one before was tuned to. So tuning adds up, and α says anew which block matters least once
    the others do its work; the paper leaves all out at once, by the α before any was. A net above
    the bar is tuned again, `ROUNDS` times in all. If it stays above, its block is put back and the
    next faintest left out, `CANDIDATES` blocks in all; then the search ends. If the fullest net
    stays above, leaner ones go on from it, tuned once each, as tuning adds up, until one meets the
    bar. Then the fainter proxies of the leanest net go as well, as long as it meets the bar. If no
    pruned net does, the student itself is returned, which stays as it is.

    The bar, in percent, is the teacher's error and the tolerance. It and `error` are on images that
    neither trained the net nor judge it in the end. Two nets that `tune` gets may have the same
    paths, and other weights at the start.
    """
    nodes = len(student.names)
    tries: list[Try] = []

    def tried(start: AugmentedNet, kept: frozenset[Path], rounds: int = ROUNDS) -> SearchResult:
        net, found = start.restricted(kept), math.inf
        for number in range(rounds):
            tune(net, len(tries), number)
            found = error(net)
            if found <= bar:
                break
        blocks = sum(path.universal for path in net.kept)
        tries.append(Try(nodes - blocks, len(net.kept) - blocks, found))
        return SearchResult(net, met=found <= bar, error=found, tries=())

    def next_below(best: SearchResult) -> SearchResult | None:
        for kept in islice(leaner(_alphas(best.net), nodes), CANDIDATES):
            one = tried(best.net, kept, ROUNDS if best.met else 1)
            if one.met or not best.met:
                return one
        return None

    kept = thinned(_alphas(student), nodes)
    best = tried(student, kept) if kept else None
    while best is not None and (below := next_below(best)) is not None:
        best = below
    if best is None or not best.met:
        full = error(student)
        return SearchResult(student, met=full <= bar, error=full, tries=tuple(tries))
    for threshold in THINNING:
        kept = thinned(_alphas(best.net), nodes, threshold=threshold)
        if kept == best.net.kept:
            continue
        if not kept or not (one := tried(best.net, kept)).met:
            break
        best = one
    return replace(best, tries=tuple(tries))


def _alphas(net: AugmentedNet) -> dict[Path, Tensor]:
    return {path: alpha.detach() for path, alpha in net.alphas().items()}
