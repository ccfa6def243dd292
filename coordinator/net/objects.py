"""Trees and commits, written to the store and read by digest, with a cap on their size."""

from __future__ import annotations

from rootstock.common.artifacts.store import BlobStore
from rootstock.common.nets.graph import NetTree, VersionCommit
from rootstock.common.nets.tree_documents import TreeRoot, TreeShard, assembled, root, shards
from rootstock.common.weights.manifest import TeacherManifest
from rootstock.coordinator.registry import Submission

MAX_DOCUMENT_BYTES = 16 << 20


def write_tree(
    store: BlobStore, tree: NetTree, grown_from: tuple[str, NetTree] | None = None
) -> str:
    """Store a tree, root last; return its digest.

    `grown_from` is a stored tree with its digest: shards that are the same in both cost nothing.
    """
    stored: dict[str, str] = {}
    before: dict[str, TreeShard] = {}
    if grown_from is not None:
        stored, before = read_root(store, grown_from[0]).shards, shards(grown_from[1])
    digests = {
        key: stored[key] if before.get(key) == shard else store.put_bytes(shard.canonical())
        for key, shard in shards(tree).items()
    }
    return store.put_bytes(root(tree, digests).canonical())


def read_tree(store: BlobStore, digest: str) -> NetTree:
    """Return the tree of that digest."""
    return assembled(read_root(store, digest), lambda name: read_shard(store, name))


def read_shard(store: BlobStore, digest: str) -> TreeShard:
    """Return the shard of that digest."""
    return TreeShard.parse(store.read_bytes(digest, MAX_DOCUMENT_BYTES), what="shard of a tree")


def read_root(store: BlobStore, digest: str) -> TreeRoot:
    """Return the root of a tree, which is named by its digest."""
    return TreeRoot.parse(store.read_bytes(digest, MAX_DOCUMENT_BYTES), what="tree")


def read_commit(store: BlobStore, digest: str) -> VersionCommit:
    """Return the commit of that digest."""
    return VersionCommit.parse(store.read_bytes(digest, MAX_DOCUMENT_BYTES), what="commit")


def read_teacher(store: BlobStore, digest: str) -> TeacherManifest:
    """Return the manifest of that digest, of a submission whose modules are in the net."""
    return TeacherManifest.parse(store.read_bytes(digest, MAX_DOCUMENT_BYTES), what="manifest")


def submitted(submission: Submission) -> TeacherManifest:
    """Return the manifest of a submission."""
    return TeacherManifest.parse(submission.manifest, what="manifest")
