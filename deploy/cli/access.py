"""How commands reach a coordinator: the process that runs, its state, or its net."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rootstock.common.config import load
from rootstock.common.errors import NotFoundError, UnreachableError
from rootstock.coordinator.config import CoordinatorConfig, StateConfig
from rootstock.deploy.client import OperatorClient

if TYPE_CHECKING:
    from rootstock.coordinator.learning.operations import Operations
    from rootstock.coordinator.net.reader import NetReader


def running(config: Path) -> OperatorClient:
    """Connect to the coordinator that runs with a coordinator.toml."""
    return OperatorClient(load(config, StateConfig).state)


@contextmanager
def operations(config: CoordinatorConfig) -> Iterator[tuple[Operations | OperatorClient, bool]]:
    """Yield who carries out what changes the coordinator's state, and whether it runs.

    Only a coordinator writes its database. Where none runs, this process takes its lock, so that
    none can start meanwhile, and does the work itself. IdentityError if another coordinator
    answers; ConflictError if one has the lock and does not answer: it starts or stops just now.
    """
    with answering(config.state) as client:
        if client is not None:
            yield client, True
            return
    from rootstock.coordinator.app import open_context
    from rootstock.coordinator.learning.operations import Operations

    with open_context(config) as context:
        yield Operations(context), False


@contextmanager
def answering(state: Path) -> Iterator[OperatorClient | None]:
    """Yield a client of the coordinator that runs in a state folder, or None if none answers."""
    with ExitStack() as stack:
        client: OperatorClient | None = None
        try:
            client = stack.enter_context(OperatorClient(state))
            client.status()
        except (NotFoundError, UnreachableError):
            client = None
        yield client


def open_net(config: Path) -> tuple[StateConfig, NetReader]:
    """Open the net of a coordinator.toml for reading; no server need run."""
    from rootstock.coordinator.net.reader import NetReader

    where = load(config, StateConfig)
    return where, NetReader.open(where)


def number_of(net: NetReader, wanted: int | None = None) -> int:
    """Return the wanted version's number, or the newest's; NotFoundError if there is none yet."""
    number = wanted if wanted is not None else net.head
    if number is None:
        raise NotFoundError("the net is not founded yet: no teacher net has been merged")
    return number
