"""How much a coordinator may draw from a lab in a day, kept on the disk.

Any 24 hours count, not calendar days. Time is the machine's own since it started, which a step of
the clock does not touch; over a restart of the machine the clock is believed for a day at most, and
not at all where it goes back.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pydantic import Field

from rootstock.common.documents import Document
from rootstock.common.errors import LimitError, SchemaError
from rootstock.common.files import storage_errors, write_bytes
from rootstock.site_agent.config import ConsentConfig

DAY = 24 * 3600.0

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Cost(Document):
    """What a question draws at most; the settings of `consent` with these names are the budget."""

    questions: int = 1
    numbers: int = 0
    bytes_down: int = 0
    refinement_steps: int = 0

    def plus(self, other: Cost) -> Cost:
        """Return the sum."""
        mine, theirs = self.model_dump(), other.model_dump()
        return Cost(**{name: value + theirs[name] for name, value in mine.items()})

    def above(self, budget: ConsentConfig) -> list[str]:
        """Return the settings that it is above, as `consent.numbers = 1000`."""
        limits = {name: getattr(budget, name) for name in Cost.model_fields}
        mine = self.model_dump()
        return [f"consent.{name} = {most}" for name, most in limits.items() if mine[name] > most]


def require_within(cost: Cost, budget: ConsentConfig) -> None:
    """Raise LimitError if a question draws more than a whole day's budget."""
    if above := cost.above(budget):
        drawn = ", ".join(f"{value} {name}" for name, value in cost.model_dump().items() if value)
        raise LimitError(
            f"the question draws {drawn}, and this lab allows {', '.join(above)} a day; ask for "
            "less, or have the lab's operator raise that"
        )


class Instant(Document):
    """A moment, by the machine's time since it started and by its clock."""

    boot: str
    """Names the machine's start; empty where the system does not tell."""
    since_boot: float
    wall: float

    @classmethod
    def now(cls) -> Self:
        """Return the present moment."""
        clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
        boot = _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else ""
        return cls(boot=boot, since_boot=time.clock_gettime(clock), wall=time.time())

    def since(self, earlier: Instant) -> float:
        """Return the seconds since an earlier moment, of this start of the machine or another."""
        if self.boot and self.boot == earlier.boot:
            return max(0.0, self.since_boot - earlier.since_boot)
        return min(max(0.0, self.wall - earlier.wall), DAY)


class Charge(Document):
    """What one question has drawn."""

    question: str
    at: float
    """Seconds of the book's own time."""
    cost: Cost
    answered: bool = False


class Book(Document):
    """The content of the budget's file."""

    seconds: float = 0.0
    """The book's own time: seconds that have passed since it was begun, as of `written`."""
    written: Instant
    charges: tuple[Charge, ...] = Field(default=(), max_length=1_000_000)


@dataclass(frozen=True)
class Wait:
    """There is no room for a question yet."""

    seconds: float
    """Until there is."""
    settings: list[str]
    """The settings that it is for, as `consent.numbers = 1000`."""


class Budget:
    """The budget of one coordinator; for one process at a time."""

    def __init__(
        self, path: Path, config: ConsentConfig, now: Callable[[], Instant] = Instant.now
    ) -> None:
        self._path = path
        self._config = config
        self._now = now
        try:
            with storage_errors(path):
                data = path.read_bytes()
        except FileNotFoundError:
            self._book = Book(written=now())
            return
        try:
            self._book = Book.parse(data, what=str(path))
        except SchemaError as error:
            raise SchemaError(
                f"{error}; remove the file, and the day's budget begins anew"
            ) from error

    def charge(self, question: str, cost: Cost) -> Wait | None:
        """Take a question's cost, durably; where the day has no room yet, return for how long.

        `question` names it: one that has been charged within the day and has no answer yet is free.
        The cost is one that `require_within` lets pass.
        """
        moment = self._now()
        now = self._book.seconds + moment.since(self._book.written)
        charges = [charge for charge in self._book.charges if charge.at > now - DAY]
        if any(charge.question == question and not charge.answered for charge in charges):
            return None
        spent = [charge.cost for charge in charges]
        if settings := _total([*spent, cost]).above(self._config):
            freed = next(
                count
                for count in range(1, len(spent) + 1)
                if not _total([*spent[count:], cost]).above(self._config)
            )
            return Wait(charges[freed - 1].at + DAY - now, settings)
        charges.append(Charge(question=question, at=now, cost=cost))
        self._write(Book(seconds=now, written=moment, charges=tuple(charges)))
        return None

    def answered(self, question: str) -> None:
        """Note durably that a question has its answer: asked again, it is charged again."""
        charges = tuple(
            charge.model_copy(update={"answered": True}) if charge.question == question else charge
            for charge in self._book.charges
        )
        self._write(self._book.model_copy(update={"charges": charges}))

    def _write(self, book: Book) -> None:
        self._book = book
        write_bytes(self._path, book.canonical())


def _total(costs: list[Cost]) -> Cost:
    total = Cost(questions=0)
    for cost in costs:
        total = total.plus(cost)
    return total
