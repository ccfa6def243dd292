"""The lab's side of an upload, in constant memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc

from rootstock.common.errors import IntegrityError, RootstockError
from rootstock.common.heap import keep_chunk_buffers
from rootstock.common.transport.chunks import Progress, Span, chunks
from rootstock.common.transport.idle import IdleWatch
from rootstock.common.transport.status import error_from_rpc
from rootstock.protos.rootstock.federation.v1.federation_pb2 import UploadRequest


def upload_requests(
    path: Path,
    *,
    upload_id: str,
    digest: str,
    offset: int,
    chunk_bytes: int,
    spans: Sequence[Span] | None = None,
) -> Iterator[UploadRequest]:
    """Yield the messages of one blob, or of its `spans` (see `chunks`), from an offset to its end.

    If nothing is left, one empty message at the end lets the coordinator prove the whole.
    """
    first = UploadRequest(
        upload_id=upload_id, digest=digest, offset=offset, stripped=spans is not None
    )
    message = first
    for at, data, crc32 in chunks(path, offset, chunk_bytes, spans):
        message = first if at == offset else UploadRequest(offset=at)
        message.data = data
        message.crc32 = crc32
        yield message
    if message is first and not first.data:
        yield first


def upload_blob(
    stub_call: Any,
    path: Path,
    *,
    upload_id: str,
    digest: str,
    offset: int,
    chunk_bytes: int = 1 << 20,
    spans: Sequence[Span] | None = None,
    idle_seconds: float = 120.0,
    progress: Progress | None = None,
) -> int:
    """Send one blob from an offset to its end, one attempt; return how many bytes are sent in all.

    `stub_call` is ``FederationStub(channel).Upload``; `upload_id` and `offset` are as BeginUpload
    gave them. `spans` is what of the file is sent where tensors are left out
    (`rootstock.common.transport.dedup.kept_spans`); None: all of it.

    Raises UnreachableError if the coordinator does not answer or nothing moved for `idle_seconds`:
    begin the upload again for the offset to resume at. Other errors are the coordinator's, or the
    file's own.
    """
    keep_chunk_buffers()
    # An error of our own file ends the messages; gRPC would log it, and report a cancelled call.
    failure: list[OSError | RootstockError] = []
    # The call is made below: only an expired watch looks at it.
    watch = IdleWatch(lambda: call.cancel(), seconds=idle_seconds, what=f"the upload of {digest}")

    def messages() -> Iterator[UploadRequest]:
        try:
            for message in upload_requests(
                path,
                upload_id=upload_id,
                digest=digest,
                offset=offset,
                chunk_bytes=chunk_bytes,
                spans=spans,
            ):
                yield message
                # Resumed once gRPC has handed the message to the network.
                watch.progress()
                if progress is not None:
                    progress(message.offset + len(message.data))
        except (OSError, RootstockError) as error:
            failure.append(error)

    call = stub_call.future(messages())
    try:
        with watch:
            response = call.result()
    except (grpc.FutureCancelledError, grpc.RpcError) as error:
        if failure:
            raise failure[0] from error
        if watch.expired or not isinstance(error, grpc.RpcError):
            raise watch.error() from error
        raise error_from_rpc(error) from error
    if failure:
        raise failure[0]
    size = path.stat().st_size if spans is None else sum(end - begin for begin, end in spans)
    if response.durable_offset != size:
        raise IntegrityError(
            f"the coordinator keeps {response.durable_offset} of the {size} bytes of {digest}; "
            "begin the upload again"
        )
    return size
