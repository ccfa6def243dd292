"""Leaving paths out, and the search for the leanest net that is good enough (section 3.5)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from common.nettailor.augmented import AugmentedNet
from common.nettailor.paths import Path, remaining

PROXY_THRESHOLD = 0.05
"""Proxies with α up to this are left out (paper, section 3.5)."""
TOLERANCE = 0.5
"""Points that a tailored net's error may be above its teacher's (paper, section 4.1)."""


def thinned(
    alphas: Mapping[Path, Tensor],
    blocks: int,
    nodes: int,
    *,
    threshold: float = PROXY_THRESHOLD,
) -> frozenset[Path]:
    """Return the paths that are left without some universal blocks and without faint proxies.

    Parameters
    ----------
    alphas
        α of every path.
    blocks
        K: the universal blocks of lowest α are left out, that many; of equal ones the lowest.
    nodes
        B, residual blocks.
    threshold
        Proxies with α up to this are left out.

    Returns
    -------
    After the rules of exclusion; empty if stem and last node are cut apart.
    """
    universal = sorted((p for p in alphas if p.universal), key=lambda p: (float(alphas[p]), p))
    proxies = {p for p in alphas if not p.universal and float(alphas[p]) > threshold}
    return remaining(proxies.union(universal[blocks:]), nodes)


@dataclass(frozen=True)
class Try:
    """One net of the search."""

    blocks: int
    """K."""
    error: float | None
    """In percent; None: stem and last node are cut apart."""


@dataclass(frozen=True)
class Found:
    """What the search came to."""

    net: AugmentedNet
    met: bool
    """Whether its error is within the tolerance. If not, the net is the full one."""
    error: float
    """In percent, on the images that the search was judged on."""
    tries: tuple[Try, ...]
    """Leanest first; a K that leaves what the one before left is not tried again."""


def search(
    student: AugmentedNet,
    bar: float,
    tune: Callable[[AugmentedNet], None],
    error: Callable[[AugmentedNet], float],
) -> Found:
    """Return the leanest net whose error is at most a bar.

    A scan from the leanest net up: K, the number of universal blocks that are left out, falls from
    all of them to none, and the first net that is good enough is taken. Errors of nets that were
    tuned for a short time do not fall steadily as K does, which a bisection would rest on.

    Parameters
    ----------
    student
        Trained; stays as it is.
    bar
        In percent: the teacher's error on the same images, and the tolerance.
    tune
        Trains a pruned net in place, without the cost of complexity.
    error
        Error in percent, on images that neither trained the net nor judge it in the end.

    Returns
    -------
    The student itself, with nothing left out, if no pruned net meets the bar.
    """
    nodes = len(student.names)
    alphas = {path: alpha.detach() for path, alpha in student.alphas().items()}
    tries: list[Try] = []
    before: frozenset[Path] | None = None
    for blocks in range(nodes, -1, -1):
        kept = thinned(alphas, blocks, nodes)
        if kept == before:
            continue
        before = kept
        if not kept:
            tries.append(Try(blocks, None))
            continue
        net = student.restricted(kept)
        tune(net)
        found = error(net)
        tries.append(Try(blocks, found))
        if found <= bar:
            return Found(net, met=True, error=found, tries=tuple(tries))
    full = error(student)
    return Found(student, met=full <= bar, error=full, tries=tuple(tries))
