"""Each way in which a database can be made to lie is found, and named."""

from __future__ import annotations

import dataclasses
import shutil
import sqlite3
from pathlib import Path

import pytest

from rootstock.common.errors import StorageError
from rootstock.common.identity.keys import SigningKey
from rootstock.common.nets.spec import TaskSpec
from rootstock.common.provenance.log import opened_head
from rootstock.coordinator.app import open_context
from rootstock.coordinator.config import CoordinatorConfig, PlanConfig
from rootstock.coordinator.provenance.signed_log import SignedLog
from rootstock.coordinator.provenance.verify import unsigned, verify_log
from rootstock.coordinator.registry import Registry
from rootstock.coordinator.registry.documents import EvaluationReport
from rootstock.coordinator.registry.entries import adopt
from rootstock.coordinator.registry.tables import MergeRow
from tests.support.coordinator_context import ARCHITECTURE
from tests.support.logged_net import grow

KEY = SigningKey.generate()


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder with a database and the head of its log."""
    folder = tmp_path_factory.mktemp("grown")
    with opened(folder) as registry:
        registry.subscribe(SignedLog(registry.log, KEY, folder / "log-head.json").keep)
        grow(registry)
    return folder


class opened:  # noqa: N801  (reads as a function)
    """The registry of a folder, closed at the end."""

    def __init__(self, folder: Path) -> None:
        self.registry = Registry(f"sqlite:///{folder / 'registry.sqlite'}")

    def __enter__(self) -> Registry:
        return self.registry

    def __exit__(self, *_: object) -> None:
        self.registry.close()


@pytest.fixture
def state(grown: Path, tmp_path: Path) -> Path:
    return shutil.copytree(grown, tmp_path / "state")


def forge(state: Path, statement: str) -> None:
    with sqlite3.connect(state / "registry.sqlite") as direct:
        for each in statement.split(";"):
            assert direct.execute(each).rowcount != 0, each
    direct.close()


def begin_the_log_anew(state: Path) -> None:
    """Enter all that is there, as into the log of a database from before there was one."""
    forge(state, "DELETE FROM log; UPDATE counters SET value = 0 WHERE name = 'log'")
    with opened(state) as registry, registry.log._database._engine.begin() as connection:
        adopt(connection)


def problems(state: Path) -> list[str]:
    with opened(state) as registry:
        found = verify_log(registry, state / "log-head.json", KEY.public_key)
    return [f"{problem.where}: {problem.what}" for problem in found]


def test_an_honest_database(state: Path) -> None:
    assert problems(state) == []


FORGERIES = {
    "numbers of a merge": (
        "UPDATE merges SET numbers = json_set(numbers, '$.no_adapter_error', 0.5)"
        " WHERE category = 'dog'",
        ["merge mrg-0002: numbers.no_adapter_error is 0.5, the log says 20.0 (entry *)"],
    ),
    "a report's numbers": (
        "UPDATE evaluations SET report = CAST(replace(report, '20.0', '10.5') AS BLOB)"
        " WHERE id = 'evl-0001'",
        ["report evl-0001: report is *, the log says * (entry *)"],
    ),
    "a report's word that nobody reads": (
        """UPDATE evaluations SET report = CAST(replace(report, '{"ev', '{"a":1,"ev') AS BLOB)"""
        " WHERE id = 'evl-0001'",
        ["report evl-0001: report is *, the log says * (entry *)"],
    ),
    "a report that is none": (
        "UPDATE evaluations SET report = x'00' WHERE id = 'evl-0001'",
        ["report evl-0001: report is *, the log says * (entry *)"],
    ),
    "a report that is gone": (
        "UPDATE evaluations SET report = NULL, reported_at = NULL WHERE id = 'evl-0001'",
        ["report evl-0001: it is gone; the log has it (entry *)"],
    ),
    "a question that is gone": (
        "DELETE FROM evaluations WHERE id = 'evl-0003'",
        [
            "question evl-0003: it is gone; the log has it (entry *)",
            "report evl-0003: it is gone; the log has it (entry *)",
        ],
    ),
    "another decision": (
        "UPDATE merges SET decision = 'reject' WHERE category = 'dog'",
        ['decision mrg-0002: decision is "reject", the log says "approve" (entry *)'],
    ),
    "another reason": (
        "UPDATE merges SET decision_reason = 'fine' WHERE category = 'dog'",
        ['decision mrg-0002: reason is "fine", the log says "looks good" (entry *)'],
    ),
    "a decision that nobody took": (
        "UPDATE merges SET decision = 'approve', decision_reason = 'fine' WHERE category = 'cat'",
        ["decision mrg-0001: it was never entered into the log"],
    ),
    "a deleted newest version": (
        "DELETE FROM net_versions WHERE number = 3",
        ["version 3: it is gone; the log has it (entry *)"],
    ),
    "a deleted head": (
        "DELETE FROM net_versions WHERE number = 2",
        [
            "head net: commit is *, the log says * (entry *)",
            "head net: version is 1, the log says 2 (entry *)",
            "version 2: it is gone; the log has it (entry *)",
        ],
    ),
    "a silent roll-back": (
        "UPDATE net_versions SET rolled_back_at = 1 WHERE number = 2",
        [
            "version 2: rolled_back is true, the log says false (entry *)",
            "head net: commit is *, the log says * (entry *)",
            "head net: version is 1, the log says 2 (entry *)",
        ],
    ),
    "a roll-back that is taken back": (
        "UPDATE net_versions SET rolled_back_at = NULL WHERE number = 3",
        [
            "version 3: rolled_back is false, the log says true (entry *)",
            "head net: commit is *, the log says * (entry *)",
            "head net: version is 3, the log says 2 (entry *)",
        ],
    ),
    "another commit": (
        "UPDATE net_versions SET digest = 'f' WHERE number = 1",
        ['version 1: commit is "f", the log says * (entry *)'],
    ),
    "a replaced site key": (
        "UPDATE sites SET public_key = x'00' WHERE name = 'cat-lab'",
        ['site cat-lab: public_key is "00", the log says * (entry *)'],
    ),
    "a former key that nobody had": (
        "INSERT INTO former_keys VALUES ('cat-lab', x'01', 1)",
        ["former-key cat-lab/01: it was never entered into the log"],
    ),
    "a site that never joined": (
        "INSERT INTO sites (name, public_key, joined_at) VALUES ('fox-lab', x'02', 1)",
        ["site fox-lab: it was never entered into the log"],
    ),
    "a revocation that is taken back": (
        "UPDATE certificates SET revoked_at = NULL, reason = NULL WHERE name = 'pig-lab'",
        ['certificate 1f: revoked is nothing, the log says "left" (entry *)'],
    ),
    "a refusal that is taken back": (
        "UPDATE submissions SET state = 'admitted' WHERE category = 'pig'",
        ['submission sub-0004: state is "admitted", the log says "refused" (entry *)'],
    ),
    "another manifest": (
        "UPDATE uploads SET manifest = x'7b7d' WHERE id = 'sub-0001'",
        ["received sub-0001: document is *, the log says * (entry *)"],
    ),
    "a receipt that is gone": (
        "UPDATE uploads SET received_at = NULL WHERE id = 'sub-0001'",
        ["received sub-0001: it is gone; the log has it (entry *)"],
    ),
    "a merge's end": (
        "UPDATE merges SET state = 'rejected', reason = 'no' WHERE category = 'cat'",
        [
            'merge mrg-0001: reason is "no", the log says "" (entry *)',
            'merge mrg-0001: state is "rejected", the log says "merged" (entry *)',
        ],
    ),
    "a changed entry": (
        "UPDATE log SET entry = CAST(replace(entry, 'looks good', 'looks fine') AS BLOB)"
        " WHERE kind = 'decision'",
        [
            "log entry *: its hashes are not those of its bytes",
            "*",
        ],
    ),
    "an entry that is gone at the end": (
        'DELETE FROM log WHERE "index" = (SELECT max("index") FROM log)',
        ["log: the log has * entries, the head signed * has *", "*"],
    ),
    "a state that there is not": (
        "UPDATE merges SET state = 'bogus' WHERE category = 'dog'",
        ["database: table merges holds what is never written there (*)*"],
    ),
    "an access that there is not": (
        "UPDATE certificates SET access = 'root' WHERE name = 'pig-lab'",
        ["database: table certificates holds what is never written there (*)*"],
    ),
    "numbers that are none": (
        "UPDATE merges SET numbers = '{' WHERE category = 'dog'",
        ["database: table merges holds what is never written there (*)*"],
    ),
    "numbers that are a list": (
        "UPDATE merges SET numbers = '[]' WHERE category = 'dog'",
        ["database: table merges holds what is never written there (*)*"],
    ),
    "a key that is text": (
        "UPDATE sites SET public_key = 'text' WHERE name = 'cat-lab'",
        ["database: table sites holds what is never written there (*)*"],
    ),
    "a manifest that is text": (
        "UPDATE uploads SET manifest = 'text' WHERE id = 'sub-0001'",
        ["database: table uploads holds what is never written there (*)*"],
    ),
    "an entry that is text": (
        "UPDATE log SET entry = 'text' WHERE kind = 'decision'",
        ["log entry *: it is no bytes", "*"],
    ),
    "an empty log": ("DELETE FROM log", ["log: the log has 0 entries, the head signed * has *"]),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forgery_is_found_and_named(state: Path, name: str) -> None:
    statement, expected = FORGERIES[name]
    forge(state, statement)
    found = problems(state)
    assert found
    for line in expected:
        assert any(matches(each, line) for each in found), (line, found)
    if expected[-1] != "*" and "empty" not in name:
        assert len(found) == len(expected), found


def matches(text: str, pattern: str) -> bool:
    """Say whether a text is a pattern's parts in their order, with anything in between."""
    first, *rest = pattern.split("*")
    if not text.startswith(first):
        return False
    at = len(first)
    for part in rest:
        at = text.find(part, at)
        if at < 0:
            return False
        at += len(part)
    return True


def test_what_follows_another_entry_has_to_be_able_to(state: Path) -> None:
    """By the writers of this program, which enter what they change into the log."""
    with opened(state) as registry, registry.log._database.write() as session:
        row = session.get(MergeRow, "mrg-0002")
        assert row is not None
        row.numbers = dataclasses.replace(row.numbers, teacher_error=0.5)
    (found,) = problems(state)
    assert "a merge can only be rolled back then" in found
    with opened(state) as registry:
        assert unsigned(registry, state / "log-head.json", KEY.public_key) == 1
        SignedLog(registry.log, KEY, state / "log-head.json").check()
        assert unsigned(registry, state / "log-head.json", KEY.public_key) == 0


def test_a_question_of_another_version_is_answered(state: Path) -> None:
    """Its document has a word that this version does not know, and leaves out when it reads it."""
    forge(
        state,
        """UPDATE evaluations SET report = NULL, reported_at = NULL, request = CAST(
        '{"a":1,' || substr(CAST(request AS TEXT), 2) AS BLOB) WHERE id = 'evl-0001'""",
    )
    begin_the_log_anew(state)
    (state / "log-head.json").unlink()
    assert problems(state) == []
    with opened(state) as registry:
        registry.evaluations.report("evl-0001", EvaluationReport(evaluation_id="evl-0001"))
    assert problems(state) == []


def test_a_log_that_was_made_anew_is_not_the_one_that_was_signed(state: Path) -> None:
    """A forger who keeps the tree right still has no signature."""
    forge(state, "UPDATE merges SET decision_reason = 'fine' WHERE category = 'dog'")
    begin_the_log_anew(state)
    assert problems(state)[0].startswith("log: the ")
    head = opened_head((state / "log-head.json").read_bytes(), KEY.public_key)
    assert head.size > 20
    (state / "log-head.json").unlink()
    assert problems(state) == []  # what labs are there for


def test_a_forged_head(state: Path) -> None:
    other = SigningKey.generate()
    with opened(state) as registry:
        forged = SignedLog(registry.log, other, state / "log-head.json").head()
    (state / "log-head.json").write_bytes(forged)
    (found,) = problems(state)
    assert "log-head.json is signed with key" in found


def test_a_coordinator_keeps_the_head_and_checks_it_when_it_starts(tmp_path: Path) -> None:
    plan = PlanConfig(architecture=ARCHITECTURE, tasks=(TaskSpec(name="classification"),))
    config = CoordinatorConfig(net="digits", state=tmp_path, plan=plan)
    for number in range(2):
        with open_context(config) as context:
            context.registry.sites.join(f"lab-{number}", b"k" * 32)
        head = opened_head((tmp_path / "log-head.json").read_bytes(), context.key.public_key)
        assert head.size == number + 1
    forge(tmp_path, 'DELETE FROM log WHERE "index" = 1; UPDATE counters SET value = 1')
    with pytest.raises(StorageError, match="has 1 entries, a head"), open_context(config):
        pass
    (tmp_path / "registry.sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(StorageError, match="put back a backup of this file"), open_context(config):
        pass


def test_a_coordinator_does_not_start_on_a_log_that_was_cut(state: Path) -> None:
    left = state / ".log-head.json.0123.aside"  # by one that was killed in the middle of it
    left.touch()
    with opened(state) as registry:
        log = SignedLog(registry.log, KEY, state / "log-head.json")
        log.check()
        assert not left.exists()
        forge(state, 'DELETE FROM log WHERE "index" > 9')
        forge(state, "UPDATE counters SET value = 10 WHERE name = 'log'")
        with pytest.raises(StorageError, match=r"has 10 entries, a head .* remove .*log-head"):
            log.check()
        (state / "log-head.json").unlink()
        log.check()
    with opened(state) as registry:
        registry.sites.join("fox-lab", b"f" * 32)  # what is left goes on
