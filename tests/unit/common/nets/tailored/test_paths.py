"""The graph of paths, and the three rules, on graphs that can be drawn on a napkin."""

from __future__ import annotations

from itertools import chain, combinations

import pytest

from rootstock.common.nets.tailored.paths import (
    Path,
    all_paths,
    input_excluded,
    output_excluded,
    remaining,
)


def test_a_node_has_its_block_and_as_many_proxies_as_there_are_nodes_below() -> None:
    paths = all_paths(4)
    assert [sum(path.target == node for path in paths) for node in range(1, 5)] == [2, 3, 4, 4]
    assert all(path.source >= 0 for path in paths)
    # Path 0 and proxy 1 read the block's own input, proxy j reads j − 1 nodes before it.
    assert [path.source for path in paths if path.target == 4] == [3, 3, 2, 1]
    assert [path.universal for path in paths if path.target == 4] == [True, False, False, False]
    assert len(all_paths(4, skips=1)) == 8


def test_the_three_rules() -> None:
    kept = {Path(1, 0), Path(2, 0), Path(3, 2)}  # 0→1→2 and 1→3: nothing reads 2
    assert not any(input_excluded(path, kept) for path in kept)
    assert [output_excluded(path, kept, 3) for path in sorted(kept)] == [False, True, False]
    cut = {Path(2, 0), Path(3, 0)}  # 1→2→3: nothing merges into 1
    assert input_excluded(Path(2, 0), cut)
    assert not input_excluded(Path(3, 0), cut)
    assert not any(output_excluded(path, cut, 3) for path in cut)
    # The stem needs nothing below it, the last node nothing above.
    assert not input_excluded(Path(1, 0), {Path(1, 0)})
    assert not output_excluded(Path(1, 0), {Path(1, 0)}, 1)


def test_one_path_left_out_strands_others_in_turn() -> None:
    # 0→1→2→3→4 and 0→3: without 2→3, node 2 is for nothing, and then so is node 1.
    chain_only = {Path(1, 0), Path(2, 0), Path(4, 0), Path(3, 3)}
    assert remaining(chain_only, 4) == {Path(3, 3), Path(4, 0)}
    # Without 0→1 everything above falls in turn: nothing is left.
    assert remaining({Path(2, 0), Path(3, 0), Path(4, 0)}, 4) == frozenset()
    whole = all_paths(4)
    assert remaining(whole, 4) == frozenset(whole)


@pytest.mark.parametrize("nodes", [1, 2, 3])
def test_what_remains_lies_on_a_way_from_the_stem_to_the_last_node(nodes: int) -> None:
    """Every subset of a small graph, against all ways through it."""
    paths = all_paths(nodes)
    subsets = chain.from_iterable(combinations(paths, size) for size in range(len(paths) + 1))
    for subset in subsets:
        expected: set[Path] = set()
        ways: list[tuple[Path, ...]] = [(path,) for path in subset if path.source == 0]
        while ways:
            way = ways.pop()
            if way[-1].target == nodes:
                expected.update(way)
            ways += [(*way, path) for path in subset if path.source == way[-1].target]
        assert remaining(subset, nodes) == expected
