"""Trees and commits, read from the store by digest, with a cap on their size."""

from __future__ import annotations

from common.artifacts.store import BlobStore
from common.nets.graph import NetTree, VersionCommit
from common.weights.manifest import TeacherManifest

MAX_DOCUMENT_BYTES = 16 << 20
"""Largest document that is read; a tree of 500 categories has about 1 MB."""


def read_tree(store: BlobStore, digest: str) -> NetTree:
    """Return the tree of that digest."""
    return NetTree.parse(store.read_bytes(digest, MAX_DOCUMENT_BYTES), what="tree")


def read_commit(store: BlobStore, digest: str) -> VersionCommit:
    """Return the commit of that digest."""
    return VersionCommit.parse(store.read_bytes(digest, MAX_DOCUMENT_BYTES), what="commit")


def read_teacher(store: BlobStore, digest: str) -> TeacherManifest:
    """Return the manifest of that digest, which a module in the net came with."""
    return TeacherManifest.parse(store.read_bytes(digest, MAX_DOCUMENT_BYTES), what="manifest")
