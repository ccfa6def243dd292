"""Mark and sweep over every kind of store."""

from __future__ import annotations

import time

from rootstock.common.artifacts.gc import Count, collect
from rootstock.common.artifacts.store import BlobStore


def test_what_nothing_names_goes_once_it_is_old(store: BlobStore) -> None:
    tree, module, orphan = (store.put_bytes(data) for data in (b"tree", b"module", b"an orphan"))
    private = store.area("samples/sub-0001").put_bytes(b"private")
    live = {"net": {tree, module}, "submissions": {module, "0" * 64}}
    young = collect(store, live, before=time.time() - 3600)
    assert young.digests == ()
    assert young.kept["young"] == Count(blobs=1, bytes=9)
    later = time.time() + 5
    told = collect(store, live, before=later, dry_run=True)
    assert store.has(orphan)
    done = collect(store, live, before=later)
    assert done == told
    assert done.digests == (orphan,)
    assert done.deleted == Count(blobs=1, bytes=9)
    # A blob counts for the first kind that names it.
    assert done.kept == {
        "net": Count(blobs=2, bytes=10),
        "submissions": Count(),
        "young": Count(),
    }
    assert [store.has(digest) for digest in (tree, module, orphan)] == [True, True, False]
    assert store.area("samples/sub-0001").has(private)
