"""Commands that only look leave a coordinator's state folder as it is, whoever works on it."""

from __future__ import annotations

import hashlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from rootstock.common.errors import ConfigurationError, NotFoundError
from rootstock.common.identity.keys import load_or_create
from rootstock.common.nets.architectures import initial_modules
from rootstock.common.protocol import Plan
from rootstock.coordinator.registry.migrate import newest
from tests.support.grown_net import CLASSIFICATION, SPEC, Command, GrownNet

pytestmark = pytest.mark.slow

COMMANDS = {
    "show": ("net", "show"),
    "log": ("net", "log"),
    "diff": ("net", "diff", "1", "2"),
    "verify": ("net", "verify"),
    "plan": ("net", "plan"),
    "predict": ("net", "predict", "PICTURE", "--task", "classification"),
    "export": ("net", "export", "--category", "dog", "--task", "classification", "--out", "OUT"),
    "heads": ("coordinator", "heads", "show"),
}
OF_THE_DATABASE = [name for name in COMMANDS if name != "heads"]


class Looking:
    """A state folder that no process has open, with everything that a coordinator leaves there."""

    def __init__(self, grown: GrownNet, folder: Path, command: Command) -> None:
        self.config, self.state = grown.config, grown.config.parent / "state"
        self.database = self.state / "registry.sqlite"
        self.key = self.state / "identity" / "coordinator.key"
        self._folder, self._command = folder, command
        load_or_create(self.key)
        module, heads = initial_modules(SPEC, (CLASSIFICATION,), 0)
        plan = Plan(
            net="animals",
            architecture=SPEC,
            tasks=(CLASSIFICATION,),
            initial_category_module=grown.put(module),
            initial_task_modules={name: grown.put(head) for name, head in heads.items()},
        )
        (self.state / "plan.json").write_bytes(plan.canonical())
        grown.registry.close()
        self.picture = folder / "picture.png"
        pixels = torch.randint(0, 256, (32, 32, 3), dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(self.picture)

    def look(self, name: str) -> str:
        """Run one command; return what it printed."""
        words = {"PICTURE": self.picture, "OUT": self._folder / "out.safetensors"}
        argv = [words.get(word, word) for word in COMMANDS[name]]
        return self._command.text(*argv, "-c", self.config)

    def bytes(self) -> dict[str, str]:
        """Return every file of the state folder with its SHA-256."""
        return {
            str(path.relative_to(self.state)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(self.state.rglob("*"))
            if path.is_file()
        }

    def set_revision(self, revision: str) -> None:
        with sqlite3.connect(self.database) as connection:
            connection.execute("UPDATE alembic_version SET version_num = ?", (revision,))
        connection.close()


@pytest.fixture
def looking(grown: GrownNet, tmp_path: Path, command: Command) -> Looking:
    return Looking(grown, tmp_path, command)


def test_a_look_changes_no_byte_and_leaves_no_file(looking: Looking) -> None:
    before = looking.bytes()
    for name in COMMANDS:
        assert looking.look(name)
        assert looking.bytes() == before, name


@pytest.mark.parametrize(
    ("revision", "remedy"),
    [("0004", "start this version's coordinator once"), ("9999", "install the version that wrote")],
)
def test_a_database_of_another_revision_is_left_as_it_is(
    revision: str, remedy: str, looking: Looking
) -> None:
    looking.set_revision(revision)
    before = looking.bytes()
    for name in OF_THE_DATABASE:
        with pytest.raises(ConfigurationError, match=remedy) as caught:
            looking.look(name)
        assert f"revision '{revision}'" in str(caught.value)
        assert f"'{newest()}'" in str(caught.value)
        assert looking.bytes() == before, name


def test_a_missing_key_is_not_replaced(looking: Looking) -> None:
    looking.key.unlink()
    with pytest.raises(NotFoundError, match=r"coordinator\.key.*from a backup"):
        looking.look("verify")
    assert not looking.key.exists()
    assert looking.look("log")  # needs no key


def test_an_operator_s_command_makes_no_other_key(looking: Looking, command: Command) -> None:
    looking.key.unlink()
    with pytest.raises(NotFoundError, match=r"coordinator\.key"):
        command.text("coordinator", "heads", "publish", "-c", looking.config)
    assert not looking.key.exists()


LOCKING = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
columns = "INSERT INTO sites (name, public_key, joined_at) VALUES"
connection.execute(f"{columns} ('cow-lab-2', x'00', 0)")
connection.execute("BEGIN IMMEDIATE")
connection.execute(f"{columns} ('pig-lab', x'00', 0)")
print("locked", flush=True)
time.sleep(600)
"""


@pytest.fixture
def writer(looking: Looking) -> Iterator[subprocess.Popen[str]]:
    """A process that has committed something, and does not let go of the write lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", LOCKING, str(looking.database)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "locked\n"
    yield process
    process.kill()
    process.communicate()


def test_nobody_waits_for_a_writer(looking: Looking, writer: subprocess.Popen[str]) -> None:
    for name in COMMANDS:
        start = time.monotonic()
        assert looking.look(name)
        assert time.monotonic() - start < 20, name  # a writer waits 30 s for another


def test_what_a_killed_writer_committed_is_seen_and_kept(
    looking: Looking, writer: subprocess.Popen[str]
) -> None:
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    before = looking.bytes()
    assert "registry.sqlite-wal" in before
    assert looking.look("log")
    after = looking.bytes()
    after["registry.sqlite-shm"] = before[
        "registry.sqlite-shm"
    ]  # an index, made anew by any reader
    assert after == before


READ_ONLY = """
set -e
mount --bind {state} {state}
mount -o remount,bind,ro {state}
! touch {state}/new
{python} - {config} {picture} {out} <<'EOF'
import sys
from rootstock.deploy.cli.commands import app
config, picture, out = sys.argv[1:]
words = dict(PICTURE=picture, OUT=out)
for argv in {commands}:
    app([words.get(word, word) for word in argv] + ["-c", config], standalone_mode=False)
EOF
"""


def look_at_a_read_only_folder(looking: Looking, out: Path, *names: str) -> None:
    """Run commands in a mount namespace in which the state folder cannot be written."""
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode:
        pytest.skip("this kernel gives no mount namespaces")
    script = READ_ONLY.format(
        state=looking.state,
        python=sys.executable,
        config=looking.config,
        picture=looking.picture,
        out=out,
        commands=[list(COMMANDS[name]) for name in names],
    )
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script], capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr


def test_a_read_only_folder_can_be_looked_at(looking: Looking, tmp_path: Path) -> None:
    look_at_a_read_only_folder(looking, tmp_path / "out.safetensors", *COMMANDS)


def test_a_read_only_view_of_a_coordinator_that_writes(
    looking: Looking, tmp_path: Path, writer: subprocess.Popen[str]
) -> None:
    look_at_a_read_only_folder(looking, tmp_path, "log")


def test_a_read_only_folder_whose_writer_was_killed(
    looking: Looking, tmp_path: Path, writer: subprocess.Popen[str]
) -> None:
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    look_at_a_read_only_folder(looking, tmp_path, "log")
