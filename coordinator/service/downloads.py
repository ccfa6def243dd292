"""Downloads: any blob that is not another site's private one, from any offset."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

from rootstock.common.artifacts.store import BlobStore, check_digest
from rootstock.common.errors import NotFoundError
from rootstock.common.transport.download import download_responses
from rootstock.coordinator.registry import Registry
from rootstock.protos.rootstock.federation.v1.federation_pb2 import (
    DownloadRequest,
    DownloadResponse,
)


async def download(
    request: DownloadRequest,
    site: str,
    *,
    registry: Registry,
    store: BlobStore,
    public: Callable[[], frozenset[str]],
    chunk_bytes: int,
) -> AsyncGenerator[DownloadResponse]:
    """Yield a blob's chunks from an offset to its end.

    While one chunk is on its way, a worker thread reads the next: two are in memory.

    Parameters
    ----------
    public
        Returns digests that every site may read whatever anyone declares: the plan's blobs.

    Raises
    ------
    NotFoundError
        If there is no such blob, or it is private to another site: both look the same.
    SchemaError
        If the digest is malformed or the offset lies beyond the end.
    """
    path = await asyncio.to_thread(_readable, request.digest, site, registry, store, public)
    responses = download_responses(path, request.offset, chunk_bytes=chunk_bytes)
    response = await asyncio.to_thread(next, responses, None)
    while response is not None:
        ahead = asyncio.ensure_future(asyncio.to_thread(next, responses, None))
        yield response
        response = await ahead


def _readable(
    digest: str,
    site: str,
    registry: Registry,
    store: BlobStore,
    public: Callable[[], frozenset[str]],
) -> Path:
    check_digest(digest)
    if digest not in public() and not registry.uploads.readable(site, digest):
        raise NotFoundError(f"there is no blob {digest} for site '{site}'; ask for another")
    return store.local_path(digest)
