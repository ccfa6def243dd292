from __future__ import annotations

from pathlib import Path

import pytest

from rootstock.common.artifacts.local import LocalStore
from rootstock.common.errors import SchemaError
from rootstock.common.nets.graph import Edge, NetTree
from rootstock.common.nets.spec import TaskSpec
from rootstock.common.nets.tree_documents import (
    SHARDS,
    TreeRoot,
    TreeShard,
    assembled,
    root,
    shard_of,
    shards,
    tree_digest,
)
from rootstock.coordinator.net.objects import read_tree, write_tree
from tests.support.net_trees import SPEC, adapter, grown, ref

NAMES = [f"category-{number}" for number in range(200)]


def net(names: list[str]) -> NetTree:
    tree = NetTree(architecture=SPEC, tasks=(TaskSpec(name="classification"),))
    tree = tree.with_task("classification", ref("b"))
    for name in names:
        tree = tree.with_category(name, ref("c"))
        tree = tree.with_edge(Edge(category=name, task="classification", adapter=adapter("d")))
    return tree


def documents(tree: NetTree) -> tuple[TreeRoot, dict[str, TreeShard]]:
    """Return a tree's root, and its shards by digest."""
    parts = shards(tree)
    digests = {key: shard.content_digest() for key, shard in parts.items()}
    return root(tree, digests), {digests[key]: shard for key, shard in parts.items()}


def test_a_tree_comes_back_from_its_documents() -> None:
    for tree in (net(NAMES), grown(), net([])):
        found, by_digest = documents(tree)
        assert assembled(found, by_digest.__getitem__) == tree
        assert found.content_digest() == tree_digest(tree)


def test_the_same_net_has_one_digest_however_it_grew() -> None:
    assert tree_digest(net(NAMES)) == tree_digest(net(NAMES[::-1]))
    assert tree_digest(net(NAMES)) != tree_digest(net(NAMES[1:]))


def test_one_more_category_changes_the_root_and_one_shard() -> None:
    _, before = documents(net(NAMES))
    _, after = documents(net([*NAMES, "one-more"]))
    assert len(after.keys() - before.keys()) == 1
    # Shards stay small: that is what makes a version cheap.
    assert len(after) <= SHARDS
    assert max(len(shard.category_modules) for shard in after.values()) < 12


def test_a_tree_that_grew_is_stored_as_any_other(tmp_path: Path) -> None:
    store, other = LocalStore(tmp_path / "one"), LocalStore(tmp_path / "other")
    before, after = net(NAMES), net([*NAMES, "one-more"])
    digest = write_tree(store, before)
    held = set(store.blobs())
    assert write_tree(store, after, (digest, before)) == write_tree(other, after)
    assert len(set(store.blobs()) - held) == 2, "a shard and the root"
    assert read_tree(store, tree_digest(after)) == after


def test_a_category_in_a_strange_shard_is_refused() -> None:
    found, by_digest = documents(net(NAMES[:2]))
    strange = TreeShard(category_modules={"cow": ref("c")}, edges=())
    key = next(key for key in found.shards if key != shard_of("cow"))

    def read(digest: str) -> TreeShard:
        return strange if digest == found.shards[key] else by_digest[digest]

    with pytest.raises(SchemaError, match="holds category 'cow'"):
        assembled(found, read)


def test_parts_that_make_no_tree_are_refused() -> None:
    found, by_digest = documents(net(["cow"]))
    (shard,) = by_digest.values()
    without = TreeShard(category_modules={}, edges=shard.edges)
    with pytest.raises(SchemaError, match=r"the parts make no tree.*cow → classification"):
        assembled(found, lambda _: without)
