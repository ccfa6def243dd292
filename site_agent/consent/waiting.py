"""Questions that wait for the day's budget, on the disk: the coordinator does not ask again."""

from __future__ import annotations

import secrets
from pathlib import Path

from rootstock.common.errors import LimitError
from rootstock.common.files import (
    make_folder,
    read_capped,
    storage_errors,
    sync_folder,
    write_bytes,
)

MAX_WAITING = 256
"""Questions; six days of the default budget. A lab's disk is not the coordinator's."""

MAX_QUESTION_BYTES = 256 << 10
"""A question names tensors and holds none."""


def require_size(question: bytes) -> None:
    """Refuse a question that is larger than one can be."""
    if len(question) > MAX_QUESTION_BYTES:
        raise LimitError(
            f"the question has {len(question)} bytes, the limit is {MAX_QUESTION_BYTES}; it names "
            "tensors and holds none"
        )


class WaitingQuestions:
    """A folder of signed questions, each in a file with the evaluation's id as its name."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, evaluation: str, question: bytes) -> None:
        """Keep a question; LimitError if it is too large, or too many wait."""
        path = self._folder / evaluation
        require_size(question)
        if not path.exists() and len(self.names()) >= MAX_WAITING:
            raise LimitError(
                f"{MAX_WAITING} questions wait at this lab for its daily budget; ask again later"
            )
        write_bytes(path, question)

    def names(self) -> list[str]:
        """Return the evaluations whose questions wait."""
        if not self._folder.is_dir():
            return []
        with storage_errors(self._folder):
            # Names that begin with a dot are files that are being written.
            return sorted(
                path.name for path in self._folder.iterdir() if not path.name.startswith(".")
            )

    def read(self, evaluation: str) -> bytes:
        """Return a question."""
        return read_capped(self._folder / evaluation, MAX_QUESTION_BYTES, what="question")

    def set_aside(self, evaluation: str) -> Path:
        """Move the file of a question that cannot be read; return where it is then."""
        path = self._folder / evaluation
        target = self._folder.with_suffix(".aside") / f"{evaluation}-{secrets.token_hex(4)}"
        make_folder(target.parent, mode=0o700)
        with storage_errors(path):
            path.rename(target)
            sync_folder(target.parent)
            sync_folder(self._folder)
        return target

    def remove(self, evaluation: str) -> None:
        """Forget a question that has its answer."""
        path = self._folder / evaluation
        if path.exists():
            with storage_errors(path):
                path.unlink()
                sync_folder(self._folder)
