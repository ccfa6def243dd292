from __future__ import annotations

import pytest

from common.errors import SchemaError
from common.nets.graph import Edge, NetTree
from common.nets.spec import TaskSpec
from common.nets.tree_documents import (
    SHARDS,
    TreeShard,
    assembled,
    documents,
    shard_of,
    tree_digest,
)
from tests.unit.nets.test_graph import SPEC, adapter, grown, ref

NAMES = [f"category-{number}" for number in range(200)]


def net(names: list[str]) -> NetTree:
    tree = NetTree(architecture=SPEC, tasks=(TaskSpec(name="classification"),))
    tree = tree.with_task("classification", ref("b"))
    for name in names:
        tree = tree.with_category(name, ref("c"))
        tree = tree.with_edge(Edge(category=name, task="classification", adapter=adapter("d")))
    return tree


def test_a_tree_comes_back_from_its_documents() -> None:
    for tree in (net(NAMES), grown(), net([])):
        root, shards = documents(tree)
        by_digest = {shard.content_digest(): shard for shard in shards}
        assert assembled(root, by_digest.__getitem__) == tree
        assert root.content_digest() == tree_digest(tree)


def test_the_same_net_has_one_digest_however_it_grew() -> None:
    assert tree_digest(net(NAMES)) == tree_digest(net(NAMES[::-1]))
    assert tree_digest(net(NAMES)) != tree_digest(net(NAMES[1:]))


def test_one_more_category_changes_the_root_and_one_shard() -> None:
    _, before = documents(net(NAMES))
    _, after = documents(net([*NAMES, "one-more"]))
    held = {shard.content_digest() for shard in before}
    assert sum(shard.content_digest() not in held for shard in after) == 1
    # Shards stay small: that is what makes a version cheap.
    assert len(after) <= SHARDS
    assert max(len(shard.category_modules) for shard in after) < 12


def test_a_category_in_a_strange_shard_is_refused() -> None:
    root, shards = documents(net(NAMES[:2]))
    strange = TreeShard(category_modules={"cow": ref("c")}, edges=())
    key = next(key for key in root.shards if key != shard_of("cow"))
    by_digest = {shard.content_digest(): shard for shard in shards}

    def read(digest: str) -> TreeShard:
        return strange if digest == root.shards[key] else by_digest[digest]

    with pytest.raises(SchemaError, match="holds category 'cow'"):
        assembled(root, read)


def test_parts_that_make_no_tree_are_refused() -> None:
    root, (shard,) = documents(net(["cow"]))
    without = TreeShard(category_modules={}, edges=shard.edges)
    with pytest.raises(SchemaError, match=r"the parts make no tree.*cow → classification"):
        assembled(root, lambda _: without)
