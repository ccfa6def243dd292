"""The renewal of a lab's certificate, in a thread of its own: trainings take longer than a day."""

from __future__ import annotations

import threading
from collections.abc import Callable

from rootstock.common.errors import RootstockError, UnreachableError
from rootstock.site_agent.wire.client import CoordinatorClient, waited_for

SHORTEST_SECONDS = 1.0
"""Between two renewals, however short a life the coordinator gives its certificates."""


class Renewal:
    """Renews at half of the certificate's lifetime, for as long as the agent runs.

    `on_renewed` is called after each renewal, `on_error` with what ends them: whoever calls next
    with the certificate hears the same.
    """

    def __init__(
        self,
        client: CoordinatorClient,
        on_renewed: Callable[[], None],
        on_error: Callable[[RootstockError], None],
    ) -> None:
        self._client = client
        self._on_renewed = on_renewed
        self._on_error = on_error
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="renewal", daemon=True)

    def __enter__(self) -> Renewal:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        pause = self._pause()
        while not self._closing.wait(pause):
            try:
                self._client.renew()
            except RootstockError as error:
                if not isinstance(waited_for(error), UnreachableError):
                    self._on_error(error)
                    return
                pause = self._client.network.retry_cap_seconds
            else:
                self._on_renewed()
                pause = self._pause()

    def _pause(self) -> float:
        return max(SHORTEST_SECONDS, self._client.seconds_to_renewal())
