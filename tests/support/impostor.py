"""A server that answers with certificates of its own choice, and keeps what it is told."""

from __future__ import annotations

import socket
import ssl
import threading
from pathlib import Path
from types import TracebackType

from rootstock.common.identity.credentials import Credentials


class Impostor:
    """Presents a chain in handshakes; `heard` is every byte of application data it got."""

    def __init__(self, folder: Path, key: Credentials, chain: bytes) -> None:
        path = folder / "impostor.pem"
        path.write_bytes(key.key_pem + chain)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(path)
        self._context.set_alpn_protocols(["h2"])
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve)
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.connections = 0
        self.heard = b""

    def __enter__(self) -> Impostor:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            connection.settimeout(10)
            try:
                with self._context.wrap_socket(connection, server_side=True) as secured:
                    while data := secured.recv(65_536):
                        self.heard += data
            except OSError:  # a handshake that the other side gave up
                continue
