"""The lab's side of a download: resumes where it was, proves what it got."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc

from rootstock.common.errors import (
    IntegrityError,
    LimitError,
    NotFoundError,
    SchemaError,
    UnreachableError,
)
from rootstock.common.files import file_digest
from rootstock.common.transport.channel import MAX_MESSAGE_BYTES
from rootstock.common.transport.chunks import SYNC_BYTES, ChunkReceiver, Progress, chunks
from rootstock.common.transport.idle import IdleWatch
from rootstock.common.transport.status import error_from_rpc
from rootstock.protos.rootstock.federation.v1.federation_pb2 import (
    DownloadRequest,
    DownloadResponse,
)


def download(
    stub_call: Any,
    digest: str,
    path: Path,
    *,
    max_bytes: int,
    size: int | None = None,
    idle_seconds: float = 120.0,
    progress: Progress | None = None,
) -> Path:
    """Fetch a blob to a file; one attempt, which resumes what an earlier one left.

    What has come so far stands in ``<path>.part``. A file at `path` that matches the digest is
    the answer already; one that does not is replaced. `stub_call` is
    ``FederationStub(channel).Download``. More than `max_bytes` is refused before a byte is written;
    `size` is what its entry says, if there is one, and the peer must say the same.

    Raises UnreachableError if the peer does not answer, ends early, or sent nothing for
    `idle_seconds`: try again. Other errors say what of the bytes, or of this disk, is wrong.
    """
    if path.is_file() and file_digest(path) == digest:
        return path
    part = path.with_name(path.name + ".part")
    offset = part.stat().st_size if part.is_file() else 0
    call = stub_call(DownloadRequest(digest=digest, offset=offset))
    receiver: ChunkReceiver | None = None
    try:
        with IdleWatch(
            call.cancel, seconds=idle_seconds, what=f"the download of {digest}"
        ) as watch:
            for message in call:
                watch.progress()
                if receiver is None:
                    total = _total(message, digest, max_bytes, size)
                    receiver = _open(part, path, digest, total)
                receiver.append(message.offset, message.data, message.crc32)
                if receiver.offset - receiver.durable_offset >= SYNC_BYTES:
                    receiver.sync()
                if progress is not None:
                    progress(receiver.offset)
        if receiver is not None and receiver.complete:
            return receiver.finish()
    except grpc.RpcError as error:
        if watch.expired:
            raise watch.error() from error
        failure = error_from_rpc(error)
        if not (isinstance(failure, SchemaError) and receiver is None and offset > 0):
            raise failure from error
        part.unlink()
        # Damage, which is tried a few times: a peer that says so each time would send for ever.
        raise IntegrityError(
            f"{part}: had {offset} bytes, more than the peer has of {digest}; it is removed: fetch "
            "the blob anew"
        ) from error
    finally:
        call.cancel()  # without effect on one that has ended
        if receiver is not None:
            receiver.leave()
    had = receiver.offset if receiver is not None else 0
    raise UnreachableError(f"the download of {digest} ended after {had} bytes; try again to resume")


def _open(part: Path, path: Path, digest: str, total: int) -> ChunkReceiver:
    try:
        return ChunkReceiver(
            part, path, digest=digest, size=total, max_chunk_bytes=MAX_MESSAGE_BYTES
        )
    except SchemaError:
        part.unlink(missing_ok=True)  # longer than the whole: of no use to the next attempt
        raise


def _total(message: DownloadResponse, digest: str, max_bytes: int, size: int | None) -> int:
    """Cap the size that the peer supplies before it is used."""
    total = message.total_size
    if total > max_bytes:
        raise LimitError(f"blob {digest} has {total} bytes, the limit is {max_bytes}")
    if size is not None and total != size:
        raise SchemaError(f"blob {digest} has {total} bytes at the peer, its entry says {size}")
    return total


def download_responses(
    path: Path, offset: int, *, chunk_bytes: int = 1 << 20
) -> Iterator[DownloadResponse]:
    """Yield the messages of a blob from an offset to its end: the sender's side.

    If nothing is left, one empty message tells the size.
    """
    if not path.is_file():
        raise NotFoundError(f"{path}: there is no such file to send")
    total = path.stat().st_size
    at = -1
    for at, data, crc32 in chunks(path, offset, chunk_bytes):
        yield DownloadResponse(offset=at, data=data, crc32=crc32, total_size=total)
    if at < 0:
        yield DownloadResponse(offset=offset, total_size=total)
