"""Expected complexity against an enumeration of every way in which paths are left out."""

from __future__ import annotations

from itertools import product
from math import prod

import pytest
import torch
from torch import Tensor

from rootstock.common.nets.tailored.paths import Path, all_paths, input_excluded, output_excluded
from rootstock.common.nettailor.learning import expected_complexity, flops, path_costs
from tests.support.nettailor_nets import SHAPE, augmented, backbone, images


def drawn(nodes: int, seed: int) -> tuple[dict[Path, Tensor], dict[Path, float]]:
    generator = torch.Generator().manual_seed(seed)
    paths = all_paths(nodes)
    alphas: dict[Path, Tensor] = {}
    for node in range(1, nodes + 1):
        into = [path for path in paths if path.target == node]
        shares = torch.randn(len(into), generator=generator, dtype=torch.float64).softmax(0)
        alphas |= dict(zip(into, shares, strict=True))
    costs = torch.rand(len(paths), generator=generator, dtype=torch.float64).tolist()
    return alphas, dict(zip(paths, costs, strict=True))


def enumerated(alphas: dict[Path, Tensor], costs: dict[Path, float], nodes: int) -> float:
    """Sum over all subsets of paths: c × (1 − P_self − P_in − P_out) (paper, Eqs. 5 to 10)."""
    paths = list(alphas)
    out = {path: [0.0, 0.0, 0.0] for path in paths}
    for draws in product((True, False), repeat=len(paths)):
        kept = {path for path, there in zip(paths, draws, strict=True) if there}
        chance = prod(
            float(alphas[path]) if path in kept else 1 - float(alphas[path]) for path in paths
        )
        for path in paths:
            events = (
                path not in kept, input_excluded(path, kept), output_excluded(path, kept, nodes)
            )  # fmt: skip
            for place, happened in enumerate(events):
                out[path][place] += chance * happened
    return sum(costs[path] * (1 - sum(out[path])) for path in paths)


@pytest.mark.parametrize(("nodes", "seed"), [(1, 0), (2, 1), (3, 2), (4, 3)])
def test_it_is_what_an_enumeration_gives(nodes: int, seed: int) -> None:
    alphas, costs = drawn(nodes, seed)
    found = float(expected_complexity(alphas, costs, nodes))
    assert found == pytest.approx(enumerated(alphas, costs, nodes), abs=1e-12)


def test_a_net_of_its_universal_blocks_alone_costs_one() -> None:
    costs = {Path(1, 0): 0.25, Path(2, 0): 0.75}
    alphas = {path: torch.tensor(1.0) for path in costs}
    assert float(expected_complexity(alphas, costs, 2)) == 1


def test_paths_that_were_left_out_count_as_never_there() -> None:
    alphas, costs = drawn(3, 5)
    gone = [Path(2, 0), Path(3, 2)]
    zeroed = {path: torch.zeros_like(a) if path in gone else a for path, a in alphas.items()}
    without = {path: a for path, a in alphas.items() if path not in gone}
    # A path with α = 0 has no cost of its own either; what it would add is −c (P_in + P_out).
    free = {path: 0.0 if path in gone else c for path, c in costs.items()}
    found = expected_complexity(without, costs, 3)
    torch.testing.assert_close(found, expected_complexity(zeroed, free, 3))


def test_its_gradient_turns_attention_from_blocks_to_proxies() -> None:
    net = augmented(blocks=2)
    costs = path_costs(net, SHAPE)
    expected_complexity(net.alphas(), costs, len(net.names)).backward()
    for logits_P in net.attention:
        assert logits_P.grad is not None
        assert float(logits_P.grad[0]) > 0  # a step against the gradient lowers the block's α


def test_costs_are_the_layers_own_multiplications() -> None:
    net = augmented(blocks=1)  # 4, 8, 16 channels on 32², 16², 8²
    costs = path_costs(net, SHAPE)
    block1 = 2 * 9 * 4 * 4 * 32**2
    block2 = 9 * (4 * 8 + 8 * 8) * 16**2
    block3 = 9 * (8 * 16 + 16 * 16) * 8**2
    whole = block1 + block2 + block3
    assert costs[Path(1, 0)] == pytest.approx(block1 / whole)
    assert costs[Path(3, 0)] == pytest.approx(block3 / whole)
    assert costs[Path(3, 1)] == pytest.approx(8 * 16 * 8**2 / whole)
    assert costs[Path(3, 3)] == pytest.approx(4 * 16 * 8**2 / whole)
    assert sum(c for path, c in costs.items() if path.universal) == pytest.approx(1)
    stem = 9 * 3 * 4 * 32**2
    f, g = backbone()
    f.append(g)
    # Two FLOPs a multiplication with addition; the head is 16 × 4.
    assert flops(f, images(1)) == 2 * (stem + whole + 16 * 4)
