"""A slow line: a TCP relay on loopback with a cap on bytes a second; counts what clients sent."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

PIECE = 64 << 10


class SlowLine:
    """Relays every connection to a port; counts what clients sent."""

    def __init__(self, port: int, bytes_per_second: float) -> None:
        self._target = ("127.0.0.1", port)
        self._rate = bytes_per_second
        self.sent = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._target)
            except OSError:
                client.close()
                continue
            threading.Thread(target=self._relay, args=(client, server, True), daemon=True).start()
            threading.Thread(target=self._relay, args=(server, client, False), daemon=True).start()

    def _relay(self, source: socket.socket, target: socket.socket, counted: bool) -> None:
        try:
            while data := source.recv(PIECE):
                if counted:
                    self.sent += len(data)
                    time.sleep(len(data) / self._rate)
                target.sendall(data)
        except OSError:
            pass
        finally:
            source.close()
            target.close()


@contextmanager
def slow_line(port: int, bytes_per_second: float) -> Iterator[SlowLine]:
    line = SlowLine(port, bytes_per_second)
    try:
        yield line
    finally:
        line.close()
