"""A real coordinator's server in a thread: registry, store, plan and gRPC, but no reconciler."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

from rootstock.common.artifacts.local import LocalStore
from rootstock.common.identity.keys import load_or_create
from rootstock.common.nets.spec import ArchitectureSpec
from rootstock.coordinator.config import CoordinatorConfig, IdentityConfig, PlanConfig, ServerConfig
from rootstock.coordinator.context import CoordinatorContext
from rootstock.coordinator.history_state import HistoryState
from rootstock.coordinator.merges.commit import Committer
from rootstock.coordinator.plan.publish import publish_plan
from rootstock.coordinator.registry import Registry
from rootstock.coordinator.service.server import CoordinatorServer
from tests.support.identities import STATES

ARCHITECTURE = ArchitectureSpec(
    name="small-vgg", settings={"input_size": 32, "width": 8}, split="pool1"
)


class Centre:
    """Serves from a state folder; may be stopped and started again on the same port."""

    def __init__(
        self,
        state: Path,
        port: int = 0,
        seed: int = 0,
        identity: IdentityConfig | None = None,
        **server: Any,
    ) -> None:
        self.config = CoordinatorConfig(
            net="digits",
            state=state,
            server=ServerConfig(
                listen=f"127.0.0.1:{port}",
                join_listen="127.0.0.1:0",
                heartbeat_seconds=0.2,
                **server,
            ),
            plan=PlanConfig(architecture=ARCHITECTURE, seed=seed),
            identity=identity or IdentityConfig(),
        )
        self.store = LocalStore(state / "artifacts")
        state.mkdir(parents=True, exist_ok=True)
        self.plan = publish_plan(self.config, self.store, state / "plan.json")
        self.key = load_or_create(state / "coordinator.key")
        self.registry = Registry(f"sqlite:///{state / 'registry.sqlite'}")
        self.address = ""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> Centre:
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._make(), self._loop).result(30)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._server.drain(1.0), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self.registry.close()

    async def _make(self) -> CoordinatorServer:
        context = CoordinatorContext(
            registry=self.registry,
            store=self.store,
            plan=self.plan,
            key=self.key,
            config=self.config,
        )
        server = CoordinatorServer(context, Committer(context), HistoryState)
        self.address = str(await server.start())
        STATES[self.address] = self.config.state
        return server
