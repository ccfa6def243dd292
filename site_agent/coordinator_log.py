"""What a lab knows of its coordinator's log, so that a history that was rewritten is noticed.

The coordinator signs heads of its log. The lab keeps the last one, for each coordinator's key, and
has it proved that the next one continues it: at the agent's start, whenever the connection was
lost, before anything is shipped and with each receipt. A log that does not (entries were changed,
or are gone since the coordinator was put back from a backup) ends the agent: nothing more is
shipped until the lab's operator has accepted it. Both heads are kept, signed: they prove it to
anybody. The first head that is seen is believed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, NoReturn

from pydantic import Field

from rootstock.common import times
from rootstock.common.documents import Document
from rootstock.common.errors import IdentityError, IntegrityError, NotFoundError, RefusedError
from rootstock.common.files import read_capped, remove_leftovers, write_bytes
from rootstock.common.identity.keys import fingerprint
from rootstock.common.provenance.log import MAX_HEAD_BYTES, LogHead, opened_head
from rootstock.common.provenance.merkle import verify_consistency

_MAX_BYTES = 1 << 20
_MAX_REWRITES = 50

Sealed = str
"""A head in its envelope, as JSON."""


class LogAnswer(NamedTuple):
    """A sealed head that a coordinator sent, and its proof; nothing is verified yet."""

    head: bytes
    proof: list[bytes]


Fetch = Callable[[int, int], LogAnswer]
"""Asks for a head: how many entries are known, and the size that is asked for, 0 the newest."""


class Rewrite(Document):
    """A log that did not continue what was known of it."""

    known: Sealed
    found: Sealed
    at: str
    """When it was noticed, RFC 3339 in UTC."""
    ended: str = ""
    """How it ended: "accepted" by the lab's operator, or "continued": the log was mended."""
    ended_at: str = ""


class KnownLog(Document):
    """What is known of a coordinator's log."""

    head: Sealed
    rewrites: tuple[Rewrite, ...] = Field(default=(), max_length=_MAX_REWRITES)

    @property
    def rewrite(self) -> Rewrite | None:
        """The rewrite that nobody has accepted yet."""
        last = self.rewrites[-1] if self.rewrites else None
        return None if last is None or last.ended else last


class CoordinatorLog:
    """The log of the coordinator with a public key (32 raw bytes), as a lab's state has it."""

    def __init__(self, state: Path, coordinator: bytes) -> None:
        self._coordinator = coordinator
        self._path = state / "log-heads" / f"{fingerprint(coordinator)}.json"

    def known(self) -> KnownLog | None:
        """Return what is known; None before the first contact."""
        try:
            data = read_capped(self._path, _MAX_BYTES, what="head of a log")
        except FileNotFoundError:
            return None
        return KnownLog.parse(data, what=str(self._path))

    def head(self, sealed: Sealed) -> LogHead:
        """Return a head that the coordinator has signed; RefusedError if it has not."""
        return opened_head(sealed.encode(), self._coordinator)

    def follow(self, fetch: Fetch, receipt: Sealed = "") -> None:
        """Have it proved that the log continues what is known, up to the head of a receipt.

        IdentityError if it does not, after both heads were kept.
        """
        known = self.known()
        promised = self._received(receipt) if receipt else None
        size, sealed, found = 0 if promised is None else promised.size, receipt, promised
        for before in _promises(known):
            trusted = None if before is None else self.head(before)
            answer = fetch(0 if trusted is None else trusted.size, size)
            shown = answer.head.decode(errors="replace")[: MAX_HEAD_BYTES + 1]
            head = self._received(shown)
            if found is not None and (head.size, head.root) != (found.size, found.root):
                self._refuse(known, sealed, shown)
            size, sealed, found = head.size, shown, head
            if before is not None and trusted is not None:
                try:
                    verify_consistency(
                        trusted.size,
                        bytes.fromhex(trusted.root),
                        head.size,
                        bytes.fromhex(head.root),
                        answer.proof,
                    )
                except IntegrityError:
                    self._refuse(known, before, shown)
        if known is None:
            self._write(KnownLog(head=sealed))
        elif known.rewrite is not None or size > self.head(known.head).size:
            self._write(KnownLog(head=sealed, rewrites=_ended(known, "continued")))

    def accept(self) -> Rewrite:
        """Go on from the log that was found; NotFoundError if there is none to accept."""
        known = self.known()
        if known is None or known.rewrite is None:
            raise NotFoundError(
                f"{self._path}: the coordinator's log has continued what was known of it; there is "
                "nothing to accept"
            )
        accepted = _ended(known, "accepted")
        self._write(KnownLog(head=known.rewrite.found, rewrites=accepted))
        return accepted[-1]

    def _refuse(self, known: KnownLog | None, before: Sealed, found: Sealed) -> NoReturn:
        """Keep the first two heads that contradict each other, and raise what they say."""
        kept = KnownLog(head=before) if known is None else known
        rewrite = kept.rewrite
        if rewrite is None:
            rewrite = Rewrite(known=before, found=found, at=times.now())
            rewrites = (*kept.rewrites, rewrite)[-_MAX_REWRITES:]
            self._write(KnownLog(head=kept.head, rewrites=rewrites))
        raise IdentityError(
            f"{self.said(rewrite)}. Nothing more is shipped. Ask the coordinator's operator "
            "whether it was put back from a backup, and what is lost; to go on, run `rootstock "
            "site accept-log --config site.toml`"
        )

    def said(self, rewrite: Rewrite) -> str:
        """Say what two heads that contradict each other say."""
        before, after = self.head(rewrite.known), self.head(rewrite.found)
        return (
            f"coordinator {fingerprint(self._coordinator)} has rewritten its history: its log of "
            f"{after.size} entries, signed {after.at}, does not continue that of {before.size} "
            f"which it signed {before.at}"
        )

    def _received(self, sealed: Sealed) -> LogHead:
        try:
            return self.head(sealed)
        except RefusedError as error:  # not one lost message: nothing it says can be relied on
            raise IdentityError(
                f"{error}; check what answers at the coordinator's address"
            ) from error

    def _write(self, known: KnownLog) -> None:
        remove_leftovers(self._path)
        write_bytes(self._path, known.canonical())


def _promises(known: KnownLog | None) -> tuple[Sealed | None, ...]:
    """Return the heads that a log has to continue; None where any is believed."""
    if known is None:
        return (None,)
    if known.rewrite is None or known.rewrite.known == known.head:
        return (known.head,)
    return known.head, known.rewrite.known  # a receipt's, which the log that was shown had not


def _ended(known: KnownLog, how: str) -> tuple[Rewrite, ...]:
    if known.rewrite is None:
        return known.rewrites
    ended = known.rewrite.model_copy(update={"ended": how, "ended_at": times.now()})
    return (*known.rewrites[:-1], ended)
