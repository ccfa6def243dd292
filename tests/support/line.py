"""A line between a lab and its coordinator: a TCP relay on loopback that can be made a bad one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress

PIECE = 64 << 10


class Line:
    """Relays every connection to a port of this machine; `address` is its own.

    Attributes
    ----------
    bytes_per_second
        Cap on what clients send, for each connection; None: none.
    delay_seconds
        How long each piece of bytes waits, both ways.
    sent
        Bytes that clients have sent through it.
    """

    def __init__(self, port: int, bytes_per_second: float | None = None) -> None:
        self.bytes_per_second = bytes_per_second
        self.delay_seconds = 0.0
        self.sent = 0
        self._port = port
        self._corrupts = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._open = asyncio.Event()
        self._open.set()
        self._closed = asyncio.Event()
        listening: Future[tuple[asyncio.AbstractEventLoop, int]] = Future()
        # What is still open when it ends is ended, too, by asyncio.run.
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(listening)), name="line", daemon=True
        )
        self._thread.start()
        self._loop, own = listening.result(timeout=30)
        self.address = f"127.0.0.1:{own}"

    def cut(self) -> None:
        """End every connection; new ones are taken."""
        self._do(self._cut)

    def hold(self) -> None:
        """Pass nothing on, in either direction, and end nothing: a black hole, until `resume`."""
        self._do(self._open.clear)

    def resume(self) -> None:
        """Pass bytes on again."""
        self._do(self._open.set)

    def corrupt(self) -> None:
        """Change one byte of the next piece that passes."""
        self._corrupts = True

    def close(self) -> None:
        self._do(self._closed.set)
        self._thread.join()

    def _do(self, action: Callable[[], object]) -> None:
        self._loop.call_soon_threadsafe(action)

    def _cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, listening: Future[tuple[asyncio.AbstractEventLoop, int]]) -> None:
        server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        listening.set_result((asyncio.get_running_loop(), server.sockets[0].getsockname()[1]))
        await self._closed.wait()
        server.close()
        self._cut()

    async def _connect(self, client: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        try:
            server, forth = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            back.close()
            return
        ends = {back, forth}
        self._writers |= ends
        try:
            await asyncio.gather(
                self._relay(client, forth, counted=True), self._relay(server, back, counted=False)
            )
        finally:
            self._writers -= ends
            for writer in ends:
                writer.close()

    async def _relay(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, *, counted: bool
    ) -> None:
        with suppress(OSError):
            while data := await source.read(PIECE):
                if counted:
                    self.sent += len(data)
                    if self.bytes_per_second is not None:
                        await asyncio.sleep(len(data) / self.bytes_per_second)
                if self.delay_seconds:
                    await asyncio.sleep(self.delay_seconds)
                await self._open.wait()
                if self._corrupts:
                    self._corrupts = False
                    data = bytes([data[0] ^ 0x55]) + data[1:]
                target.write(data)
                await target.drain()
        target.close()


@contextmanager
def line_to(port: int, bytes_per_second: float | None = None) -> Iterator[Line]:
    line = Line(port, bytes_per_second)
    try:
        yield line
    finally:
        line.close()
