"""An entry of the spool on its way: what the coordinator lacks of it is sent, and nothing else."""

from __future__ import annotations

from collections.abc import Callable

from rootstock.common.errors import SchemaError
from rootstock.common.failpoints import failpoint
from rootstock.common.transport.dedup import held_bytes, kept_spans
from rootstock.common.transport.upload import upload_blob
from rootstock.common.weights.manifest import BlobEntry
from rootstock.common.weights.safetensors_io import read_header
from rootstock.protos.rootstock.federation.v1 import federation_pb2 as pb
from rootstock.site_agent.spool.documents import SignedReceipt
from rootstock.site_agent.spool.spool import SpoolEntry
from rootstock.site_agent.state import check
from rootstock.site_agent.wire import messages
from rootstock.site_agent.wire.client import DAMAGED_TRIES, CoordinatorClient, OnBytes


class Shipment:
    """The upload of one entry, over as many tries as it takes, by a client that knows the plan.

    `signature` is the site's of the manifest, for the coordinator's net. `on_bytes` is called with
    the bytes that the coordinator has, those it had before included, and with those in all. `sent`
    are bytes of blobs that went over the wire, by earlier runs of the agent as well; `left_out`
    those of the blobs on their way that are not sent, as the coordinator has them. `before_blob` is
    called with each blob that is about to be sent, and how many bytes.
    """

    def __init__(
        self,
        client: CoordinatorClient,
        entry: SpoolEntry,
        signature: bytes,
        on_bytes: OnBytes = lambda _done, _total: None,
        before_blob: Callable[[BlobEntry, int], None] = lambda _blob, _size: None,
    ) -> None:
        self.entry = entry
        self.total = entry.size
        self.sent = entry.sent
        self.left_out = 0
        self._client = client
        self._signature = signature
        self._on_bytes = on_bytes
        self._before_blob = before_blob

    def send(self) -> SignedReceipt:
        """Send what the coordinator lacks, from where it was cut, and commit it."""
        return self._client.patient(self._once, damaged_tries=DAMAGED_TRIES)

    def is_received(self) -> bool:
        """Ask whether the coordinator has the entry; if not, its upload is begun."""
        return self._client.patient(self._begin).HasField("receipt")

    def _once(self) -> SignedReceipt:
        client, limits = self._client, self._client.limits
        entry, begun = self.entry, self._begin()
        if begun.HasField("receipt"):
            return messages.receipt(begun.receipt)
        blobs = {blob.digest: blob for blob in entry.manifest.blobs()}
        for missing in begun.missing:
            if missing.digest not in blobs:
                raise SchemaError(
                    f"the coordinator asks for blob {missing.digest[:80]!r}, which manifest "
                    f"{entry.digest} does not have; check the coordinator's version"
                )
        failpoint("upload.opened")
        left_out = {
            each.digest: held_bytes(blobs[each.digest], set(each.held_tensors))
            for each in begun.missing
        }
        self.left_out = sum(left_out.values())
        to_send = {digest: blobs[digest].size - count for digest, count in left_out.items()}
        done = self.total - sum(to_send.values())
        for missing in begun.missing:
            path, spans = entry.blob(missing.digest), None
            if missing.held_tensors:
                header = read_header(path, limits=limits)
                spans = kept_spans(header, path.stat().st_size, set(missing.held_tensors))
            size = to_send[missing.digest] - missing.durable_offset
            self._before_blob(blobs[missing.digest], size)
            upload_blob(
                client.stub.Upload,
                path,
                upload_id=begun.upload_id,
                digest=missing.digest,
                offset=missing.durable_offset,
                chunk_bytes=limits.chunk_bytes,
                spans=spans,
                idle_seconds=client.network.idle_seconds,
                progress=self._progress(done, missing.durable_offset),
            )
            done += to_send[missing.digest]
        failpoint("upload.sent")
        committed = pb.CommitUploadRequest(upload_id=begun.upload_id)
        return messages.receipt(client.unary(client.stub.CommitUpload, committed).receipt)

    def _begin(self) -> pb.BeginUploadResponse:
        request = pb.BeginUploadRequest(
            manifest=self.entry.manifest_bytes, signature=self._signature, leaves_out=True
        )
        begun: pb.BeginUploadResponse = self._client.unary(self._client.stub.BeginUpload, request)
        return begun

    def _progress(self, before: int, offset: int) -> Callable[[int], None]:
        last = offset

        def progress(behind: int) -> None:
            nonlocal last
            self.sent += behind - last
            last = behind
            check(self._client.stop)
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
