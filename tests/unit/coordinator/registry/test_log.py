"""Whatever makes the net what it is, is in the log: once, in order, with what it records."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from alembic import command

from rootstock.common.errors import ConflictError, NotFoundError
from rootstock.common.provenance.log import LogEntry
from rootstock.common.provenance.merkle import leaf_hash, verify_consistency
from rootstock.coordinator.growth.numbers import MergeNumbers
from rootstock.coordinator.registry import Access, Merge, MergeState, Registry
from rootstock.coordinator.registry.documents import EvaluationReport, EvaluationRequest
from rootstock.coordinator.registry.entries import ACTING
from rootstock.coordinator.registry.migrate import alembic_config, newest
from tests.support.named_blobs import ARCHITECTURE, blob


def entries(registry: Registry, after: int = 0) -> list[LogEntry]:
    with registry.log.snapshot() as (rows, _):
        stored = list(rows)
    assert [row.index for row in stored] == list(range(len(stored)))
    found = [LogEntry.parse(row.entry, what="entry") for row in stored]
    for row, entry in zip(stored, found, strict=True):
        assert row.hashes[:32] == leaf_hash(row.entry)
        assert (row.index, row.kind, row.subject) == (entry.index, entry.kind, entry.subject)
    return found[after:]


def told(registry: Registry, after: int) -> list[tuple[str, str, dict[str, Any]]]:
    return [(each.kind, each.subject, each.facts) for each in entries(registry, after)]


def test_the_way_of_a_teacher_net(registry: Registry, evaluating: Callable[[str], Merge]) -> None:
    assert [each.subject for each in entries(registry)] == ["cat-lab", "dog-lab"]
    merge = evaluating("cat")
    asked = EvaluationRequest(
        evaluation_id="evl-0001",
        merge_id=merge.id,
        manifest_digest="a" * 64,
        task="classification",
        architecture=ARCHITECTURE,
        task_module=blob("g"),
        candidates={},
    )
    registry.evaluations.request("cat-lab", asked)
    answer = EvaluationReport(evaluation_id="evl-0001", failure="no images")
    assert registry.evaluations.report("evl-0001", answer)
    registry.merges.advance(merge.id, MergeState.REVIEWING)
    ACTING.set("operator/ann")
    registry.merges.decide(merge.id, "approve", "looks good")
    registry.merges.update(merge.id, numbers=MergeNumbers(teacher_error=4.5))
    registry.versions.commit(1, "d" * 64, "e" * 64, None, merge.id)
    registry.versions.roll_back(1, "wrong labels")
    ACTING.set("coordinator")

    kinds = [each.kind for each in entries(registry, 2)]
    assert kinds == [
        *("received", "submission", "question", "report", "decision"),
        *("merge", "version", "head", "merge", "version", "head"),
    ]
    found = told(registry, 2)
    assert found[0][2]["manifest"] == found[0][2]["document"]
    assert found[2][2]["request"] == asked.content_digest()
    assert found[3] == ("report", "evl-0001", {"report": answer.content_digest()})
    assert found[4][2] == {"decision": "approve", "reason": "looks good"}
    assert found[5][2]["numbers"] == {"teacher_error": 4.5}
    assert (found[5][2]["state"], found[8][2]["state"]) == ("merged", "rolled_back")
    assert (found[6][2]["rolled_back"], found[9][2]["rolled_back"]) == (False, True)
    assert found[7] == ("head", "net", {"version": 1, "commit": "d" * 64})
    assert found[10] == ("head", "net", {"version": None, "commit": None})
    assert [each.by for each in entries(registry, 2)] == ["coordinator"] * 4 + ["operator/ann"] * 7


def test_who_may_call(registry: Registry) -> None:
    registry.certificates.add("1f", "cat-lab", Access.SITE, 1e12)
    registry.certificates.revoke("cat-lab", Access.SITE, "left")
    registry.sites.disable("dog-lab", "pause")
    registry.sites.enable("dog-lab")
    token = registry.invitations.create("cat-lab", Access.SITE, 3600.0, again=True)
    registry.invitations.redeem(token, b"n" * 32)
    assert told(registry, 2) == [
        ("certificate", "1f", {"name": "cat-lab", "access": "site", "revoked": None}),
        ("certificate", "1f", {"name": "cat-lab", "access": "site", "revoked": "left"}),
        ("site", "dog-lab", {"public_key": (b"d" * 32).hex(), "disabled": "pause"}),
        ("site", "dog-lab", {"public_key": (b"d" * 32).hex(), "disabled": None}),
        ("site", "cat-lab", {"public_key": (b"n" * 32).hex(), "disabled": None}),
        (
            *("former-key", f"cat-lab/{(b'c' * 32).hex()}"),
            {"public_key": (b"c" * 32).hex()},
        ),
    ]


def test_what_is_not_committed_is_not_in_the_log(registry: Registry) -> None:
    with pytest.raises(ConflictError):
        registry.sites.join("cat-lab", b"x" * 32)
    registry.sites.join("cat-lab", b"c" * 32)  # changes nothing
    assert len(entries(registry)) == 2
    registry.sites.join("cow-lab", b"w" * 32)
    assert [each.index for each in entries(registry)] == [0, 1, 2]


def test_writers_side_by_side_leave_no_gap(registry: Registry) -> None:
    def join(name: str) -> None:
        for number in range(5):
            registry.sites.join(f"{name}-{number}", b"k" * 32)

    threads = [threading.Thread(target=join, args=(f"lab{each}",)) for each in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(entries(registry)) == 22


def test_a_log_continues_what_it_was(registry: Registry) -> None:
    old, root = registry.log.root()
    for number in range(9):
        registry.sites.join(f"lab-{number}", b"k" * 32)
    new, later = registry.log.root()
    assert (old, new) == (2, 11)
    assert registry.log.root(old) == (old, root)
    verify_consistency(old, root, new, later, registry.log.consistency(old))
    verify_consistency(
        5, registry.log.root(5)[1], 8, registry.log.root(8)[1], registry.log.consistency(5, 8)
    )
    with pytest.raises(NotFoundError, match="has 11 entries, asked was about 12; a log never"):
        registry.log.consistency(12)


def test_a_database_of_before_is_entered_once(registry: Registry, url: str, tmp_path: Path) -> None:
    registry.sites.disable("dog-lab", "pause")
    registry.close()
    engine = sqlalchemy.create_engine(url)
    with engine.begin() as connection:
        command.downgrade(alembic_config(connection), "0008")
    engine.dispose()
    for _ in range(2):
        opened = Registry(url)
        assert told(opened, 0) == [
            ("site", "cat-lab", {"public_key": (b"c" * 32).hex(), "disabled": None}),
            ("site", "dog-lab", {"public_key": (b"d" * 32).hex(), "disabled": "pause"}),
        ]
        assert {each.by for each in entries(opened)} == {"upgrade"}
        opened.close()
    # One that was emptied since is not filled again: that would pass for a history.
    with sqlite3.connect(tmp_path / "registry.sqlite") as direct:
        direct.execute("DELETE FROM log")
    direct.close()
    assert newest() >= "0009"
    opened = Registry(url)
    assert entries(opened) == []
    opened.close()
