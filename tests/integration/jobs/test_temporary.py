"""Ray's temporary folder: a killed coordinator's is deleted, and no other."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rootstock.common.errors import StorageError
from rootstock.coordinator.jobs.temporary import FOLDER_PREFIX, temporary_folder

HOLDER = """
import time
from rootstock.coordinator.jobs.temporary import temporary_folder
with temporary_folder() as folder:
    (folder / "session").mkdir()
    print(folder, flush=True)
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    return tmp_path


def test_only_the_folder_of_a_process_that_has_ended_is_deleted(parent: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, text=True) as it:
        assert it.stdout is not None
        theirs = Path(it.stdout.readline().strip())
        with temporary_folder():
            assert (theirs / "session").is_dir()
        it.kill()
    with temporary_folder() as ours:
        assert list(parent.iterdir()) == [ours]
    assert list(parent.iterdir()) == []


WRITER = """
import sys, time
from pathlib import Path
session = Path(sys.argv[1]) / "r" / "session"
print(flush=True)
while True:
    session.mkdir(parents=True, exist_ok=True)  # the whole folder anew, as Ray's workers do
    time.sleep(0.001)
"""
HOLDER_OF_A_WRITER = f"""
import subprocess, sys, time
from rootstock.coordinator.jobs.temporary import marked, temporary_folder
with temporary_folder() as folder:
    with marked(folder):
        words = [sys.executable, "-c", {WRITER!r}, str(folder)]
        writer = subprocess.Popen(words, stdout=subprocess.PIPE)
    writer.stdout.readline()
    print(folder, flush=True)
    sys.stdin.readline()
"""


@pytest.mark.parametrize("killed", [True, False])
def test_who_writes_to_a_folder_ends_with_it(parent: Path, *, killed: bool) -> None:
    words = [sys.executable, "-c", HOLDER_OF_A_WRITER]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        folder = Path(holder.stdout.readline().strip())
        if killed:
            holder.kill()
            holder.wait()
            time.sleep(0.05)
            assert (folder / "r" / "session").is_dir()
        else:
            holder.communicate("end")
    if killed:
        with temporary_folder() as ours:
            assert list(parent.iterdir()) == [ours]
    time.sleep(0.1)
    assert list(parent.iterdir()) == []


@pytest.mark.parametrize("kind", ["folder", "file", "link", "link inside"])
def test_what_no_coordinator_made_stays(parent: Path, kind: str) -> None:
    strange = parent / f"{FOLDER_PREFIX}strange"
    mine = parent / "mine"
    mine.mkdir()
    (mine / "lock").touch()
    if kind == "folder":
        strange.mkdir()
    elif kind == "file":
        strange.touch()
    elif kind == "link":
        strange.symlink_to(mine)
    else:
        strange.mkdir()
        (strange / "lock").symlink_to(mine / "lock")
    with temporary_folder():
        pass
    assert set(parent.iterdir()) == {strange, mine}
    assert list(mine.iterdir()) == [mine / "lock"]


def test_a_link_in_a_stale_folder_is_not_followed(parent: Path) -> None:
    stale, mine = parent / f"{FOLDER_PREFIX}stale", parent / "mine"
    stale.mkdir()
    mine.mkdir()
    (mine / "thesis").touch()
    (stale / "lock").touch()
    (stale / "session").symlink_to(mine)
    with temporary_folder():
        pass
    assert list(parent.iterdir()) == [mine]
    assert list(mine.iterdir()) == [mine / "thesis"]


def test_without_a_folder_for_temporary_files_the_remedy_is_named() -> None:
    script = (
        "import tempfile\n"
        "tempfile._candidate_tempdir_list = lambda: ['/proc/nowhere']\n"
        "from rootstock.coordinator.jobs.temporary import temporary_folder\n"
        "with temporary_folder(): pass\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=os.environ
    )
    last = done.stderr.splitlines()[-1]
    assert StorageError.__name__ in last
    assert "set TMPDIR to a folder that can be written" in last
