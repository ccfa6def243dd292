"""What an agent keeps of its consent to one coordinator: the budget, the ledger, who waits.

Below the state folder, FP being the fingerprint of the coordinator's key::

    consent/FP.json          what was drawn within the day
    consent/FP.waiting/      questions that wait for the day's budget
    consent/FP.aside/        those of them that could not be read
    ledger/2026-11.jsonl     what left, a file a month
"""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

from rootstock.common import times
from rootstock.common.identity.keys import fingerprint
from rootstock.site_agent.config import ConsentConfig
from rootstock.site_agent.consent.budget import Budget, Cost, Wait
from rootstock.site_agent.consent.ledger import Ledger
from rootstock.site_agent.consent.waiting import WaitingQuestions

LOOK_SECONDS = 600.0
"""Longest pause between two looks at questions that wait."""


class Consent:
    """The lab's side of what one coordinator draws."""

    def __init__(self, state: Path, config: ConsentConfig, coordinator_key: bytes) -> None:
        name = fingerprint(coordinator_key)
        self.coordinator_key = coordinator_key
        self.ledger = Ledger(state, name)
        self.waiting = WaitingQuestions(state / "consent" / f"{name}.waiting")
        self._budget = Budget(state / "consent" / f"{name}.json", config)
        self._look_at = 0.0
        self._why = ""

    def charge(self, evaluation: str, question: bytes, cost: Cost) -> bool:
        """Take a question's cost; an agent that was killed over the answer pays no second time.

        False where it waits for the day's budget instead; LimitError if too many do.
        """
        wait = self._budget.charge(_named(question), cost)
        if wait is None:
            self.waiting.remove(evaluation)
            return True
        self.waiting.add(evaluation, question)
        self._postpone(wait)
        return False

    def answered(self, question: bytes) -> None:
        """Note that a question's report is about to be kept: once more, it costs once more."""
        self._budget.answered(_named(question))

    def due(self) -> list[str]:
        """Return the evaluations whose questions may have their turn now."""
        if time.monotonic() < self._look_at:
            return []
        self._look_at, self._why = time.monotonic() + LOOK_SECONDS, ""
        return self.waiting.names()

    def remark(self) -> str:
        """Say for people how many questions wait, for what, and until when; empty: none."""
        count = len(self.waiting.names()) if self._why else 0
        if count == 0:
            return ""
        what = "1 question waits" if count == 1 else f"{count} questions wait"
        return f"{what} for the day's budget: {self._why}"

    def _postpone(self, wait: Wait) -> None:
        self._look_at = min(self._look_at, time.monotonic() + wait.seconds)
        until = times.readable(times.instant(time.time() + wait.seconds))
        self._why = f"{', '.join(wait.settings)}; there is room by {until}"


def _named(question: bytes) -> str:
    return hashlib.sha256(question).hexdigest()
