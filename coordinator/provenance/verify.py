"""``net verify``: the log is as it was signed, and the database says what the log says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rootstock.common.documents import canonical_json
from rootstock.common.errors import RootstockError
from rootstock.common.provenance.log import SAID_ONCE, LogEntry, LogHead, LogKind
from rootstock.common.provenance.merkle import Tree, leaf_hash
from rootstock.coordinator.growth.states import MergeState
from rootstock.coordinator.net.verify import Problem
from rootstock.coordinator.provenance.signed_log import read_head
from rootstock.coordinator.registry import Registry
from rootstock.coordinator.registry.facts import Fact
from rootstock.coordinator.registry.log import StoredEntry

_WHOLE = "the log is whole"
_CONTINUES = "the log continues its signed head"
_AGREES = "the database says what the log says"

Known = dict[tuple[str, str], LogEntry]
"""The last entry about each subject, by kind and subject."""


def verify_log(registry: Registry, head_file: Path, coordinator: bytes) -> list[Problem]:
    """Replay the log against its tree, the newest signed head, and the database.

    The head is in a file, signed with the coordinator's key (32 raw bytes); without the file a log
    that was made anew as a whole passes here, though not with labs.
    """
    replay = Replay()
    problems: list[Problem] = []
    try:
        known = read_head(head_file, coordinator)
    except RootstockError as error:
        known = None
        problems.append(Problem(what=str(error), where=head_file.name, rule=_CONTINUES))
    with registry.log.snapshot() as (rows, facts):
        problems += [problem for row in rows for problem in replay.take(row)]
        if known is not None and (what := replay.contradicts(known)):
            problems.append(Problem(what=what, where="log", rule=_CONTINUES))
        try:
            problems += compare(replay.last, list(facts))
        except RootstockError as error:  # a document that is none any more
            problems.append(Problem(what=str(error), where="database", rule=_AGREES))
    return problems


def unsigned(registry: Registry, head_file: Path, coordinator: bytes) -> int:
    """Return how many entries came after the newest head that was signed.

    What was written as the coordinator was killed, and by commands while none ran, it signs when
    it starts; so it would what somebody else wrote.
    """
    head = read_head(head_file, coordinator)
    return max(0, registry.log.size() - (0 if head is None else head.size))


class Replay:
    """Reads a log from its first entry, and builds its tree anew."""

    def __init__(self) -> None:
        self.last: Known = {}
        self._tree = Tree()

    def take(self, row: StoredEntry) -> Iterator[Problem]:
        """Read the next row; yield what is wrong with it."""
        index, where = self._tree.size, f"log entry {row.index}"
        if not (isinstance(row.entry, bytes) and isinstance(row.hashes, bytes)):
            self._tree.append(leaf_hash(b""))
            yield Problem(what="it is no bytes", where=where, rule=_WHOLE)
            return
        hashes = self._tree.append(leaf_hash(row.entry))
        if row.hashes != b"".join(hashes):
            yield Problem(what="its hashes are not those of its bytes", where=where, rule=_WHOLE)
        try:
            entry = LogEntry.parse(row.entry, what="entry")
        except RootstockError as error:
            yield Problem(what=str(error), where=where, rule=_WHOLE)
            return
        said = (index, entry.kind, entry.subject)
        if not (row.index, row.kind, row.subject) == said == (entry.index, *said[1:]):
            what = f"it is number {index} and says {entry.index}, {entry.kind} {entry.subject}"
            yield Problem(what=what, where=where, rule=_WHOLE)
        if what := _out_of_turn(self.last.get((entry.kind, entry.subject)), entry):
            yield Problem(what=what, where=where, rule=_WHOLE)
        self.last[entry.kind, entry.subject] = entry

    def contradicts(self, head: LogHead) -> str:
        """Say in what way the entries are not those of a head that was signed; empty: they are."""
        if self._tree.size < head.size:
            return (
                f"the log has {self._tree.size} entries, the head signed {head.at} has {head.size}"
            )
        if self._tree.root(head.size).hex() != head.root:
            return f"the first {head.size} entries are not those of the head signed {head.at}"
        return ""


def _out_of_turn(before: LogEntry | None, entry: LogEntry) -> str:
    """Say why an entry cannot follow the one before it about its subject; empty: it can."""
    if before is None:
        return ""
    if entry.kind in SAID_ONCE:
        return f"entry {before.index} has said it; what it says never changes"
    if entry.kind is LogKind.MERGE:
        was, now = before.facts, entry.facts
        rolled_back = {**was, "state": MergeState.ROLLED_BACK, "reason": now.get("reason")}
        if was.get("state") != MergeState.MERGED or now != rolled_back:
            return f"entry {before.index} has ended it; a merge can only be rolled back then"
    return ""


def compare(last: Known, found: list[Fact]) -> Iterator[Problem]:
    """Yield each way in which facts differ from what the log said last."""
    missing = dict(last)
    for fact in found:
        entry = missing.pop((fact.kind, fact.subject), None)
        where = f"{fact.kind} {fact.subject}"
        if entry is None:
            yield Problem(what="it was never entered into the log", where=where, rule=_AGREES)
        else:
            for what in _differences(fact.values, entry.facts):
                yield Problem(what=f"{what} (entry {entry.index})", where=where, rule=_AGREES)
    for entry in missing.values():
        what = f"it is gone; the log has it (entry {entry.index})"
        yield Problem(what=what, where=f"{entry.kind} {entry.subject}", rule=_AGREES)


def _differences(
    found: Mapping[str, Any], logged: Mapping[str, Any], prefix: str = ""
) -> Iterator[str]:
    for name in sorted(found.keys() | logged.keys()):
        ours, theirs = found.get(name), logged.get(name)
        if isinstance(ours, dict) and isinstance(theirs, dict):
            yield from _differences(ours, theirs, f"{name}.")
        elif canonical_json(ours) != canonical_json(theirs):
            yield f"{prefix}{name} is {_short(ours)}, the log says {_short(theirs)}"


def _short(value: Any) -> str:
    text = "nothing" if value is None else canonical_json(value).decode()
    return text if len(text) <= 80 else text[:77] + "..."
