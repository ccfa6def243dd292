"""Servers that answer in the place of MLflow: proxies, other services, ones that hang."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import NamedTuple

PAGE = b"<html><body>Please sign in to the proxy. " + b"x" * 5000 + b"</body></html>"


class Answer(NamedTuple):
    """What an odd server says to every call; /health, which it may know, is answered with 200."""

    status: int = HTTPStatus.OK
    body: bytes = b"{}"
    hangs: bool = False
    cuts: bool = False
    """Ends the connection without a word."""
    health: int = HTTPStatus.OK


@contextmanager
def odd_server(answer: Answer) -> Iterator[str]:
    """Serve one answer to all calls on a free port; yield the address."""
    release = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def _answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.path.endswith("/health"):
                self._send(answer.health, b"OK")
                return
            if answer.hangs:
                release.wait()
            if answer.hangs or answer.cuts:
                self.close_connection = True
                return
            self._send(answer.status, answer.body)

        def _send(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _answer

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            release.set()
            server.shutdown()
            thread.join()
