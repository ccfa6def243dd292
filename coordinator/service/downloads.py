"""Downloads: a blob that the site may read, from any offset."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from pathlib import Path

from rootstock.common.artifacts.store import BlobStore, check_digest
from rootstock.common.errors import NotFoundError
from rootstock.common.transport.download import download_responses
from rootstock.coordinator.service.readable import ReadableBlobs
from rootstock.protos.rootstock.federation.v1.federation_pb2 import (
    DownloadRequest,
    DownloadResponse,
)


async def download(
    request: DownloadRequest,
    site: str,
    *,
    store: BlobStore,
    readable: ReadableBlobs,
    chunk_bytes: int,
) -> AsyncGenerator[DownloadResponse]:
    """Yield a blob's chunks from an offset to its end.

    While one chunk is on its way, a worker thread reads the next: two are in memory.

    Raises
    ------
    NotFoundError
        If the site may not read the blob, or there is none: both look the same. Any other error
        would say that there is one.
    SchemaError
        If the digest is malformed or the offset lies beyond the end.
    """
    path = await asyncio.to_thread(_path, request.digest, site, store, readable)
    responses = download_responses(path, request.offset, chunk_bytes=chunk_bytes)
    response = await asyncio.to_thread(next, responses, None)
    while response is not None:
        ahead = asyncio.ensure_future(asyncio.to_thread(next, responses, None))
        yield response
        response = await ahead


def _path(digest: str, site: str, store: BlobStore, readable: ReadableBlobs) -> Path:
    check_digest(digest)
    if readable(site, digest):
        with suppress(NotFoundError):
            return store.local_path(digest)
    raise NotFoundError(f"there is no blob {digest} for site '{site}'; ask for another")
