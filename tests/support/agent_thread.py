"""A site agent in a thread of the test's process."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rootstock.common.errors import RootstockError
from rootstock.site_agent.agent import run
from rootstock.site_agent.config import (
    DataConfig,
    NetworkConfig,
    RefinementConfig,
    SiteConfig,
    TrainingConfig,
)
from rootstock.site_agent.identity import IdentityFiles
from tests.support.identities import STATES, join_coordinator, write_identity


def site(state: Path, address: str, digit: int = 0, **changes: object) -> SiteConfig:
    """Return the configuration of a lab that has joined the coordinator at an address."""
    values: dict[str, object] = {
        "site": f"lab-{digit}",
        "coordinator": address,
        "state": state,
        "category": f"digit-{digit}",
        "threads": 1,
        "data": DataConfig(
            kind="digits", class_name=str(digit), rest=tuple("56789"), part=digit + 1, parts=5
        ),
        "training": TrainingConfig(epochs=4),
        "refinement": RefinementConfig(steps=60, views=1),
        "network": NetworkConfig(idle_seconds=5, retry_cap_seconds=0.5, patience_seconds=5),
    }
    config = SiteConfig.model_validate(values | changes)
    if not IdentityFiles(state).credentials.exists():
        if address in STATES:
            join_coordinator(address, config.site, state)
        else:
            write_identity(state, config.site)
    return config


class Running:
    """An agent in a thread, and what it ended with."""

    def __init__(self, config: SiteConfig) -> None:
        self.config = config
        self.stop = threading.Event()
        self.error: RootstockError | None = None
        self.thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            run(self.config, self.stop)
        except RootstockError as error:
            self.error = error

    def status(self) -> dict[str, object]:
        path = self.config.state / "status.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def log(self) -> list[dict[str, object]]:
        lines = (self.config.state / "agent.log").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def until(self, condition: Callable[[], object], seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert self.thread.is_alive(), self.error
            assert time.monotonic() < end, self.status()
            time.sleep(0.02)


@contextmanager
def running(config: SiteConfig) -> Iterator[Running]:
    agent = Running(config)
    agent.thread.start()
    try:
        yield agent
    finally:
        agent.stop.set()
        agent.thread.join(30)
        assert not agent.thread.is_alive()
