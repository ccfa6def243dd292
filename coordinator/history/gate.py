"""MLflow's own application behind a password: another user of this machine reads nothing of it.

MLflow has no switch for it without further packages and a database of users. `uvicorn` imports
`app` from here; `coordinator.history.gated_server` has it do so.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Awaitable, Callable, MutableMapping
from hmac import compare_digest
from typing import Any

USER = "rootstock"
PASSWORD = "ROOTSTOCK_MLFLOW_PASSWORD"  # noqa: S105  (a variable's name)
"""The variable of the server's environment that has the password: arguments are everyone's."""

OPEN = "/health"
"""Says that the server is up, and nothing else."""

Message = MutableMapping[str, Any]
Application = Callable[
    [Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]],
    Awaitable[None],
]


class Gate:
    """An ASGI application that asks for a name and a password (HTTP Basic) before another one."""

    def __init__(self, application: Application, password: str) -> None:
        self._application = application
        self._expected = b"Basic " + base64.b64encode(f"{USER}:{password}".encode())

    async def __call__(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        """Serve a request that has the password; ask for it where it is missing."""
        if scope["type"] == "lifespan" or self._may(scope):
            await self._application(scope, receive, send)
            return
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        asks = [(b"www-authenticate", b'Basic realm="rootstock"'), (b"content-length", b"0")]
        await send({"type": "http.response.start", "status": 401, "headers": asks})
        await send({"type": "http.response.body", "body": b""})

    def _may(self, scope: Message) -> bool:
        if scope["type"] == "http" and scope["path"] == OPEN:
            return True
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        return len(given) == 1 and compare_digest(given[0], self._expected)


def __getattr__(name: str) -> Gate:
    if name != "app":
        raise AttributeError(name)
    from mlflow.server.fastapi_app import app as mlflow_app

    return Gate(mlflow_app, os.environ[PASSWORD])
