"""How many uploads may stream at once: each holds memory, and memory is a constant."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from rootstock.common.errors import UnreachableError

STREAMS = 64
"""Streams at once: at up to 8 MiB each that wait for the disk (see common.transport.receive),
half a GiB. Labs beyond that come back later, with what they have sent kept."""

STREAMS_PER_SITE = 4
"""An agent sends one blob at a time; after a cut, older streams may live here for a while."""


class Slots:
    """Counts the streams that are open. Use from one event loop.

    Parameters
    ----------
    in_all, per_site
        Streams that may be open at once.
    """

    def __init__(self, in_all: int = STREAMS, per_site: int = STREAMS_PER_SITE) -> None:
        self._in_all = in_all
        self._per_site = per_site
        self._open: Counter[str] = Counter()

    @contextmanager
    def taken(self, site: str) -> Iterator[None]:
        """Hold a slot for as long as a stream of a site lasts.

        Raises
        ------
        UnreachableError
            If there is none; later there may be.
        """
        if self._open[site] >= self._per_site:
            raise UnreachableError(
                f"site '{site}' has {self._open[site]} upload streams open, the limit is "
                f"{self._per_site}; end those, or try again later"
            )
        if self._open.total() >= self._in_all:
            raise UnreachableError(
                f"{self._open.total()} upload streams are open, the limit is {self._in_all}; try "
                "again later"
            )
        self._open[site] += 1
        try:
            yield
        finally:
            self._open[site] -= 1
            if not self._open[site]:
                del self._open[site]
