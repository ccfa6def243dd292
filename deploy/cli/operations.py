"""Who carries out an operator's command: the coordinator that runs, or the command in its place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rootstock.common.errors import NotFoundError, UnreachableError
from rootstock.deploy.client import OperatorClient

if TYPE_CHECKING:
    from rootstock.coordinator.config import CoordinatorConfig
    from rootstock.coordinator.learning.operations import Operations


@contextmanager
def operations(config: CoordinatorConfig) -> Iterator[tuple[Operations | OperatorClient, bool]]:
    """Yield who carries out what changes the coordinator's state, and whether it runs.

    Only a coordinator writes its database. Where none runs, this process takes its lock, so that
    none can start meanwhile, and does the work itself.

    Raises
    ------
    IdentityError
        If the coordinator that answers is another one.
    ConflictError
        If a coordinator holds the state folder and does not answer: it starts or stops just now.
    """
    if (client := _running(config)) is not None:
        with client:
            yield client, True
        return
    from rootstock.coordinator.app import open_context
    from rootstock.coordinator.learning.operations import Operations

    with open_context(config) as context:
        yield Operations(context), False


def _running(config: CoordinatorConfig) -> OperatorClient | None:
    try:
        client = OperatorClient.of_state(config.state)
    except NotFoundError:
        return None
    try:
        client.status()
    except UnreachableError:
        client.close()
        return None
    return client
