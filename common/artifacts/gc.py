"""Garbage collection: blobs that nothing refers to are deleted once they are old enough.

Whoever refers to a blob has put or renewed it shortly before. So a reference that the collector has
not seen yet is to a young blob, and a young blob stays: collecting is safe beside everything else
that works on the store, provided that the grace period is longer than it takes from a put to its
reference.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Set
from threading import Event

from pydantic import Field

from rootstock.common.artifacts.store import BlobStore, StoredBlob
from rootstock.common.documents import Document

HALF_WRITTEN_SECONDS = 24 * 3600.0
"""What is being written is left alone for so long, whatever the grace period."""

YOUNG = "young"
"""The kind of blobs that nothing refers to, yet."""


class Count(Document):
    """How many blobs, and their bytes."""

    blobs: int = Field(default=0, ge=0)
    bytes: int = Field(default=0, ge=0)

    def __add__(self, blob: StoredBlob) -> Count:
        return Count(blobs=self.blobs + 1, bytes=self.bytes + blob.size)


class Collection(Document):
    """What a collection found in a store."""

    kept: dict[str, Count]
    """By the first kind that refers to a blob; `young` for those that nothing refers to."""
    deleted: Count
    """Of a dry run: what would be."""
    digests: tuple[str, ...]
    """Of what is deleted, in order."""


def collect(
    store: BlobStore,
    live: Mapping[str, Set[str]],
    *,
    before: float,
    dry_run: bool = False,
    stop: Event | None = None,
) -> Collection:
    """Delete what no kind names and nothing has put since `before`.

    `live` are the digests that are referred to, by kind: all that were when `before`, now less the
    grace period, was chosen, in seconds since the epoch. `dry_run` only says what would be deleted;
    `stop` ends the collection early, and what is garbage still is so the next time.
    """
    kept: defaultdict[str, Count] = defaultdict(Count, {kind: Count() for kind in (*live, YOUNG)})
    deleted, digests = Count(), []
    for blob in store.blobs():
        if stop is not None and stop.is_set():
            break
        kind = next((kind for kind, named in live.items() if blob.digest in named), None)
        if (
            kind is None
            and blob.put_at < before
            and (dry_run or store.discard(blob.digest, before))
        ):
            deleted += blob
            digests.append(blob.digest)
        else:
            kept[kind or YOUNG] += blob
    if not dry_run:
        store.tidy(min(before, time.time() - HALF_WRITTEN_SECONDS))
    return Collection(kept=dict(kept), deleted=deleted, digests=tuple(digests))
