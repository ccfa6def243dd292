from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from rootstock.common.errors import ConfigurationError, StorageError
from rootstock.coordinator.growth.operations import OperationKind
from rootstock.coordinator.registry import Change, NewEvent, Registry
from rootstock.coordinator.registry.migrate import alembic_config, migrate, newest
from rootstock.coordinator.registry.tables import Base


def test_migrations_lead_from_nothing_to_the_tables(tmp_path: Path) -> None:
    engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path / 'empty.sqlite'}")
    with engine.begin() as connection:
        migrate(connection)
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
    with engine.begin() as connection:
        command.downgrade(alembic_config(connection), "base")
        assert {"alembic_version"} == set(sqlalchemy.inspect(connection).get_table_names())
    engine.dispose()


def test_a_newer_database_is_left_alone(registry: Registry, url: str, tmp_path: Path) -> None:
    registry.close()
    with sqlite3.connect(tmp_path / "registry.sqlite") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(ConfigurationError, match=r"'9999'.*install the version that wrote it"):
        Registry(url)


def test_what_was_written_is_there_when_opened_again(registry: Registry, url: str) -> None:
    registry.events.append(NewEvent("cat-lab", "merge", b"one"))
    registry.close()
    again = Registry(url)
    assert [event.payload for event in again.events.after("cat-lab", 0, 10)] == [b"one"]
    assert again.events.append(NewEvent(None, "version", b"two")) == 2
    again.close()


def test_a_damaged_database_is_named(registry: Registry, url: str, tmp_path: Path) -> None:
    for number in range(200):
        registry.sites.join(f"lab-{number}", b"k" * 32)
    registry.check()
    registry.close()
    path = tmp_path / "registry.sqlite"
    data = bytearray(path.read_bytes())
    page = data.rindex(b"lab-77")  # leaves of an index in the middle of the file
    data[page - 1000 : page + 1000] = bytes(2000)
    path.write_bytes(data)
    damaged = Registry(url)
    with pytest.raises(StorageError, match=r"registry\.sqlite is damaged .*put back a backup"):
        damaged.check()
    damaged.close()


def test_events_are_for_a_site_or_for_all_and_follow_a_cursor(registry: Registry) -> None:
    registry.events.append(NewEvent("cat-lab", "merge", b"cat"))
    everyone = registry.events.append(NewEvent(None, "version", b"all"))
    registry.events.append(NewEvent("dog-lab", "merge", b"dog"))
    assert [e.payload for e in registry.events.after("cat-lab", 0, 10)] == [b"cat", b"all"]
    assert [e.payload for e in registry.events.after("dog-lab", everyone, 10)] == [b"dog"]
    assert [e.payload for e in registry.events.after("cat-lab", 0, 1)] == [b"cat"]
    assert registry.events.last_cursor() == 3


def test_listeners_hear_after_the_commit_whom_it_concerns(registry: Registry) -> None:
    heard: list[tuple[Change, int]] = []
    end = registry.subscribe(lambda change: heard.append((change, registry.events.last_cursor())))
    registry.events.append(NewEvent("cat-lab", "merge", b""))
    registry.events.append(NewEvent(None, "version", b""))
    registry.sites.join("cow-lab", b"w" * 32)
    end()
    registry.events.append(NewEvent("cat-lab", "merge", b""))
    expected = [
        (Change(sites=frozenset({"cat-lab"})), 1),
        (Change(everyone=True), 2),
        (Change(members=True, logged=True), 2),
    ]
    assert expected == heard


def test_cursors_have_no_gap_whoever_appends(registry: Registry) -> None:
    start = threading.Barrier(8)

    def append(writer: int) -> list[int]:
        start.wait()
        return [
            registry.events.append(NewEvent("cat-lab", "merge", bytes([writer]))) for _ in range(20)
        ]

    with ThreadPoolExecutor(8) as pool:
        cursors = [cursor for group in pool.map(append, range(8)) for cursor in group]
    assert list(range(1, 161)) == sorted(cursors)
    assert len(registry.events.after("cat-lab", 0, 1000)) == 160


def test_racing_creations_make_one_merge(
    registry: Registry, admitted: Callable[[str], str]
) -> None:
    submission = admitted("cat")
    start = threading.Barrier(8)

    def create(_: int) -> str:
        start.wait()
        return str(
            registry.merges.create(submission, "cat", "classification", OperationKind.FOUND).id
        )

    with ThreadPoolExecutor(8) as pool:
        assert {"mrg-0001"} == set(pool.map(create, range(8)))


WRITER = """
import sys
from rootstock.coordinator.registry import NewEvent, Registry
registry = Registry(sys.argv[1])
while True:
    print(registry.events.append(NewEvent(None, "version", b"x" * 4000)), flush=True)
"""


def test_what_was_reported_survives_kill_9(url: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, url], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    reported = [int(process.stdout.readline()) for _ in range(20)]
    os.kill(process.pid, signal.SIGKILL)
    rest, _ = process.communicate()
    reported += [int(line) for line in rest.splitlines()]
    registry = Registry(url)
    kept = [event.cursor for event in registry.events.after("cat-lab", 0, 10_000)]
    assert reported == kept[: len(reported)]
    assert len(kept) <= len(reported) + 1  # one may have been committed and not yet reported
    assert kept[-1] + 1 == registry.events.append(NewEvent(None, "version", b""))
    registry.close()


FULL_DISK = """
import resource, sys
from rootstock.common.errors import StorageError
from rootstock.coordinator.registry import NewEvent, Registry
registry = Registry(sys.argv[1])
# The system refuses to let any file grow further: what a full disk does.
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
try:
    while True:
        print(registry.events.append(NewEvent(None, "version", b"x" * 4000)), flush=True)
except StorageError as error:
    print(error, file=sys.stderr)
"""


def test_a_full_disk_is_named_and_what_was_committed_stays(url: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, url], capture_output=True, text=True, check=True
    )
    assert str(tmp_path) in done.stderr
    assert "What was committed before is kept" in done.stderr
    reported = [int(line) for line in done.stdout.splitlines()]
    assert reported
    registry = Registry(url)
    kept = [event.cursor for event in registry.events.after("cat-lab", 0, 10_000)]
    assert reported == kept
    registry.events.append(NewEvent(None, "version", b"there is room again"))
    registry.close()


def test_a_read_only_database_can_be_read_and_says_the_remedy(
    registry: Registry, tmp_path: Path
) -> None:
    registry.close()
    path = tmp_path / "registry.sqlite"
    frozen = Registry(f"sqlite:///file:{path}?mode=ro&uri=true")
    with pytest.raises(StorageError, match=r"registry\.sqlite.*writable for this user"):
        frozen.sites.join("cow-lab", b"w" * 32)
    assert [site.name for site in frozen.sites.all()] == ["cat-lab", "dog-lab"]
    frozen.close()


def test_a_reader_sees_what_a_writer_commits_and_writes_nothing(
    registry: Registry, url: str
) -> None:
    reader = Registry(url, read_only=True)
    assert [site.name for site in reader.sites.all()] == ["cat-lab", "dog-lab"]
    registry.sites.join("cow-lab", b"w" * 32)
    assert [site.name for site in reader.sites.all()] == ["cat-lab", "cow-lab", "dog-lab"]
    with pytest.raises(RuntimeError, match="opened to be read only"):
        reader.sites.join("pig-lab", b"p" * 32)
    registry.close()  # the last that wrote: the database is one file again
    assert [site.name for site in reader.sites.all()] == ["cat-lab", "cow-lab", "dog-lab"]
    reader.close()


def test_a_reader_makes_no_schema(tmp_path: Path) -> None:
    path = tmp_path / "registry.sqlite"
    path.touch()
    with pytest.raises(ConfigurationError, match=r"revision None.*rootstock coordinator run"):
        Registry(f"sqlite:///{path}", read_only=True)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == b""


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"absent/registry\.sqlite.*create its folder"):
        Registry(f"sqlite:///{tmp_path / 'absent' / 'registry.sqlite'}")


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "registry.sqlite"
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(StorageError, match=r"registry\.sqlite.*backup"):
        Registry(f"sqlite:///{path}")


def test_an_event_needs_a_site_that_joined(registry: Registry) -> None:
    with pytest.raises(Exception, match="FOREIGN KEY"):
        registry.events.append(NewEvent("cow-lab", "merge", b""))
    assert registry.events.after("cow-lab", 0, 10) == []


@pytest.mark.parametrize("url", ["no url at all", "/srv/registry.sqlite"])
def test_an_url_that_is_none_is_a_setting_to_mend(url: str) -> None:
    with pytest.raises(ConfigurationError, match="sqlite:///PATH"):
        Registry(url)


def test_new_events_are_frozen() -> None:
    event = NewEvent(None, "version", b"")
    with pytest.raises(AttributeError):
        event.kind = "merge"  # type: ignore[misc]  # what mypy refuses, too


def test_the_newest_revision_is_known_without_alembic() -> None:
    assert ScriptDirectory.from_config(alembic_config()).get_current_head() == newest()
