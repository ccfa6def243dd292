"""An entry of the spool on its way: what the coordinator lacks of it is sent, and nothing else."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rootstock.common.errors import SchemaError
from rootstock.common.protocol import Limits
from rootstock.common.transport.chunks import Span
from rootstock.common.transport.dedup import held_bytes, kept_spans
from rootstock.common.transport.upload import upload_blob
from rootstock.common.weights.manifest import BlobEntry
from rootstock.common.weights.safetensors_io import read_header
from rootstock.protos.rootstock.federation.v1 import federation_pb2 as pb
from rootstock.protos.rootstock.federation.v1.federation_pb2_grpc import FederationStub
from rootstock.site_agent import stopping
from rootstock.site_agent.spool.documents import SignedReceipt
from rootstock.site_agent.spool.spool import SpoolEntry

OnBytes = Callable[[int, int], None]
"""Called with bytes done and bytes in all."""


class Shipment:
    """One entry, over as many tries as it takes.

    Parameters
    ----------
    entry
        What is shipped.
    on_bytes
        Told the bytes that the coordinator has, those it held before included, and those in all.

    Attributes
    ----------
    total
        Bytes of the entry's blobs.
    sent
        Bytes of blobs that went over the wire, by earlier runs of the agent as well.
    held
        Bytes that the coordinator holds and that are left out of the blobs on their way.
    """

    def __init__(self, entry: SpoolEntry, on_bytes: OnBytes = lambda _done, _total: None) -> None:
        self.entry = entry
        self.total = entry.size
        self.sent = entry.sent
        self.held = 0
        self._on_bytes = on_bytes

    def send(
        self,
        stub: FederationStub,
        unary: Callable[[Any, Any], Any],
        *,
        limits: Limits,
        idle_seconds: float,
        stop: threading.Event,
    ) -> SignedReceipt:
        """Send what the coordinator lacks, from where it was cut, and commit it; one try.

        Parameters
        ----------
        stub
            The coordinator's.
        unary
            Makes a unary call: its method, its request.
        limits
            The plan's.
        idle_seconds
            How long nothing may move.
        stop
            Ends the sending.

        Raises
        ------
        SchemaError
            If the coordinator asks for what the manifest does not have.
        Stopped, UnreachableError, RefusedError
            See `CoordinatorClient.ship`.
        """
        entry = self.entry
        request = pb.BeginUploadRequest(
            manifest=entry.manifest_bytes, signature=entry.signature, leaves_out=True
        )
        begun = unary(stub.BeginUpload, request)
        if begun.HasField("receipt"):
            return SignedReceipt.of(begun.receipt)
        blobs = {blob.digest: blob for blob in entry.manifest.blobs()}
        for missing in begun.missing:
            if missing.digest not in blobs:
                raise SchemaError(
                    f"the coordinator asks for blob {missing.digest[:80]!r}, which manifest "
                    f"{entry.digest} does not have; check the coordinator's version"
                )
        held = {each.digest: _held(blobs[each.digest], each) for each in begun.missing}
        self.held = sum(held.values())
        to_send = {digest: blobs[digest].size - count for digest, count in held.items()}
        done = self.total - sum(to_send.values())
        for missing in begun.missing:
            path = entry.blob(missing.digest)
            upload_blob(
                stub.Upload,
                path,
                upload_id=begun.upload_id,
                digest=missing.digest,
                offset=missing.durable_offset,
                chunk_bytes=limits.chunk_bytes,
                spans=_spans(path, missing, limits) if missing.held_tensors else None,
                idle_seconds=idle_seconds,
                progress=self._progress(done, missing.durable_offset, stop),
            )
            done += to_send[missing.digest]
        return SignedReceipt.of(
            unary(stub.CommitUpload, pb.CommitUploadRequest(upload_id=begun.upload_id)).receipt
        )

    def _progress(self, before: int, offset: int, stop: threading.Event) -> Callable[[int], None]:
        last = offset

        def progress(behind: int) -> None:
            nonlocal last
            self.sent += behind - last
            last = behind
            stopping.check(stop)
            self._on_bytes(before + behind, self.total)

        return progress


def what_was_sent(sent: int, total: int) -> str:
    """Say for people how much of an entry went over the wire, in bytes."""
    if sent >= total:
        return f"sent {readable(sent)}"
    return f"sent {readable(sent)} of {readable(total)}: the coordinator holds the rest"


def readable(count: int) -> str:
    """Return a number of bytes as people read it: 812 bytes, 61.2 KB, 553.4 MB."""
    if count < 1000:
        return f"{count} bytes"
    if count < 1_000_000:
        return f"{count / 1e3:.1f} KB"
    return f"{count / 1e6:.1f} MB"


def _held(blob: BlobEntry, missing: pb.MissingBlob) -> int:
    return held_bytes(blob, set(missing.held_tensors))


def _spans(path: Path, missing: pb.MissingBlob, limits: Limits) -> list[Span]:
    header = read_header(path, limits=limits)
    return kept_spans(header, path.stat().st_size, set(missing.held_tensors))
