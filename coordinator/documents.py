"""Trees and commits, written to the store and read by digest, with a cap on their size."""

from __future__ import annotations

from common.artifacts.store import BlobStore
from common.nets.graph import NetTree, VersionCommit
from common.nets.tree_documents import TreeRoot, TreeShard, assembled, documents
from common.weights.manifest import TeacherManifest

MAX_DOCUMENT_BYTES = 16 << 20
"""Largest document that is read."""


def write_tree(store: BlobStore, tree: NetTree) -> str:
    """Store a tree, root last; return its digest. Shards that are there cost nothing."""
    root, shards = documents(tree)
    for shard in shards:
        store.put_bytes(shard.canonical())
    return store.put_bytes(root.canonical())


def read_tree(store: BlobStore, digest: str) -> NetTree:
    """Return the tree of that digest."""

    def shard(name: str) -> TreeShard:
        return TreeShard.parse(store.read_bytes(name, MAX_DOCUMENT_BYTES), what="shard of a tree")

    root = TreeRoot.parse(store.read_bytes(digest, MAX_DOCUMENT_BYTES), what="tree")
    return assembled(root, shard)


def read_commit(store: BlobStore, digest: str) -> VersionCommit:
    """Return the commit of that digest."""
    return VersionCommit.parse(store.read_bytes(digest, MAX_DOCUMENT_BYTES), what="commit")


def read_teacher(store: BlobStore, digest: str) -> TeacherManifest:
    """Return the manifest of that digest, which a module in the net came with."""
    return TeacherManifest.parse(store.read_bytes(digest, MAX_DOCUMENT_BYTES), what="manifest")
