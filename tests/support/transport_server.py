"""A real gRPC server on 127.0.0.1, port 0, around the transport's own parts."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

from rootstock.common.errors import RootstockError
from rootstock.common.transport.channel import open_channel, server_options
from rootstock.common.transport.chunks import ChunkReceiver
from rootstock.common.transport.download import download_responses
from rootstock.common.transport.receive import CHUNKS_IN_MEMORY, receive
from rootstock.common.transport.status import abort_status
from rootstock.protos.rootstock.federation.v1 import federation_pb2 as pb
from rootstock.protos.rootstock.federation.v1 import federation_pb2_grpc as pb_grpc
from tests.support.identities import client_credentials, server_credentials


async def chained(first: Any, others: AsyncIterator[Any]) -> AsyncIterator[Any]:
    yield first
    async for message in others:
        yield message


class Server(pb_grpc.FederationServicer):
    """Keeps uploads of `size` bytes in `folder`; sends files of it by name of their digest."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.size = 0
        self.chunk_bytes = 1 << 16
        self.idle_seconds = 30.0
        self.error: RootstockError | None = None
        self.stall_after: int | None = None
        self.responses: Callable[[Iterator[pb.DownloadResponse]], Iterator[pb.DownloadResponse]] = (
            lambda responses: responses
        )
        self.address = ""

    async def BeginUpload(self, request: Any, context: Any) -> pb.BeginUploadResponse:  # noqa: N802
        if self.error is not None:
            await self._abort(context, self.error)
        return pb.BeginUploadResponse(upload_id=request.manifest.decode())

    async def Upload(self, requests: Any, context: Any) -> pb.UploadResponse:  # noqa: N802
        messages = aiter(requests)
        first = await anext(messages)
        if self.stall_after == 0:
            await asyncio.sleep(3600)
        try:
            receiver = await asyncio.to_thread(
                ChunkReceiver,
                self.folder / (first.digest + ".part"),
                self.folder / first.digest,
                digest=first.digest,
                size=self.size,
                max_chunk_bytes=1 << 20,
            )
            whole = chained(first, messages)
            room = asyncio.Semaphore(CHUNKS_IN_MEMORY)
            offset = await receive(whole, receiver, room=room, idle_seconds=self.idle_seconds)
        except RootstockError as error:
            await self._abort(context, error)
        return pb.UploadResponse(digest=first.digest, durable_offset=offset)

    async def Download(  # noqa: N802
        self, request: Any, context: Any
    ) -> AsyncIterator[pb.DownloadResponse]:
        try:
            sent = download_responses(
                self.folder / request.digest, request.offset, chunk_bytes=self.chunk_bytes
            )
            for count, response in enumerate(self.responses(sent)):
                if count == self.stall_after:
                    await asyncio.sleep(3600)
                yield response
        except RootstockError as error:
            await self._abort(context, error)

    async def _abort(self, context: Any, error: RootstockError) -> None:
        code, details, metadata = abort_status(error)
        await context.abort(code, details, metadata)


@contextmanager
def serving(folder: Path) -> Iterator[tuple[Server, pb_grpc.FederationStub]]:
    """Run a server in a thread of its own, and give a client's stub."""
    folder.mkdir(exist_ok=True)
    service = Server(folder)  # type: ignore[abstract]  # gRPC answers the other calls
    started, stop = threading.Event(), threading.Event()

    async def serve() -> None:
        server = grpc.aio.server(options=server_options())
        pb_grpc.add_FederationServicer_to_server(service, server)
        port = server.add_secure_port("127.0.0.1:0", server_credentials())
        service.address = f"127.0.0.1:{port}"
        await server.start()
        started.set()
        await asyncio.to_thread(stop.wait)
        await server.stop(grace=None)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    started.wait()
    channel = open_channel(service.address, client_credentials())
    try:
        yield service, pb_grpc.FederationStub(channel)
    finally:
        channel.close()
        stop.set()
        thread.join()
