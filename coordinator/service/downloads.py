"""Downloads: the blobs that a lab may read, from any offset.

The store holds far more: other labs' statistics, their teachers before they are merged or after
they were refused, rejected candidates. To know a digest is not to have the blob, nor to learn
whether there is one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from pathlib import Path

from rootstock.common.artifacts.store import check_digest
from rootstock.common.errors import NotFoundError
from rootstock.common.transport.download import download_responses
from rootstock.coordinator.context import CoordinatorContext
from rootstock.coordinator.plan.heads import CurrentHeads
from rootstock.protos.rootstock.federation.v1.federation_pb2 import (
    DownloadRequest,
    DownloadResponse,
)


class Downloads:
    """Sends blobs by an allow-list.

    On it are the plan's initial weights, published heads, the present net, what the site itself has
    sent, and what it is asked to evaluate.
    """

    def __init__(self, context: CoordinatorContext, heads: CurrentHeads) -> None:
        self._context = context
        self._heads = heads
        self._initial = frozenset(entry.digest for entry in context.plan.blobs())
        self._net: tuple[str, frozenset[str]] = ("", frozenset())

    def allowed(self, site: str, digest: str) -> bool:
        """Say whether a site may read a blob."""
        return (
            digest in self._initial
            or digest in self._published()
            or digest in self._in_net()
            or self._context.registry.uploads.sent(site, digest)
            or any(
                digest in evaluation.request.digests()
                for evaluation in self._context.registry.evaluations.unanswered(site)
            )
        )

    async def send(self, site: str, request: DownloadRequest) -> AsyncGenerator[DownloadResponse]:
        """Yield a blob's chunks from an offset to its end.

        While one chunk is on its way, a worker thread reads the next: two are in memory.
        NotFoundError if the site may not read the blob, or there is none: both look the same, for
        any other error would say that there is one.
        """
        path = await asyncio.to_thread(self._path, site, request.digest)
        chunk_bytes = self._context.plan.limits.chunk_bytes
        responses = download_responses(path, request.offset, chunk_bytes=chunk_bytes)
        response = await asyncio.to_thread(next, responses, None)
        while response is not None:
            ahead = asyncio.ensure_future(asyncio.to_thread(next, responses, None))
            yield response
            response = await ahead

    def _path(self, site: str, digest: str) -> Path:
        check_digest(digest)
        if self.allowed(site, digest):
            with suppress(NotFoundError):
                return self._context.store.local_path(digest)
        raise NotFoundError(f"there is no blob {digest} for site '{site}'; ask for another")

    def _published(self) -> set[str]:
        heads = self._heads()
        return set() if heads is None else {entry.digest for entry in heads.blobs()}

    def _in_net(self) -> frozenset[str]:
        """Return the blobs of the present net; its tree is read once."""
        head = self._context.head()
        if head is None:
            return frozenset()
        net = self._net  # threads may replace it
        if net[0] != head.tree:
            self._net = net = head.tree, frozenset(self._context.net.tree_of(head).digests())
        return net[1]
