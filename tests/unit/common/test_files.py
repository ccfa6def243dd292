from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rootstock.common.errors import ConfigurationError, ConflictError
from rootstock.common.files import make_private, only_one

HOLDER = """
import sys, time
from pathlib import Path
from rootstock.common.files import only_one
with only_one(Path(sys.argv[1]), "coordinator"):
    print("holds", flush=True)
    time.sleep(60)
"""


def test_a_folder_is_held_by_one_process_until_it_dies(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == "holds\n"
        said = rf"another coordinator \(process {holder.pid}\) runs in this state folder"
        with pytest.raises(ConflictError, match=said), only_one(tmp_path, "coordinator"):
            pass
    finally:
        holder.kill()
        holder.communicate()
    with only_one(tmp_path, "coordinator"):
        pass
    with only_one(tmp_path, "coordinator"):  # and is free again afterwards
        pass


def test_a_state_folder_is_closed_to_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with only_one(tmp_path / "new" / "state", "agent"):
        assert (tmp_path / "new" / "state").stat().st_mode & 0o777 == 0o700
    assert not caplog.messages
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    for mode in (0o755, 0o750, 0o711):
        caplog.clear()
        open_to_all.chmod(mode)
        with only_one(open_to_all, "agent"):
            assert open_to_all.stat().st_mode & 0o777 == 0o700
        assert caplog.messages == [
            f"{open_to_all} could be entered by other users (mode {mode:04o}); it is this user's "
            "alone now"
        ]
    lock = open_to_all / "lock"
    lock.unlink()
    (open_to_all / "identity").mkdir()
    open_to_all.chmod(0o755)
    make_private(open_to_all)
    assert open_to_all.stat().st_mode & 0o777 == 0o700


def test_a_folder_with_files_of_something_else_is_left_as_it_is(tmp_path: Path) -> None:
    """As /srv is: who closes it takes from others what is theirs."""
    shared = tmp_path / "a service's"
    shared.mkdir()
    (shared / "www").mkdir()
    shared.chmod(0o755)

    def refused() -> str:
        with pytest.raises(ConfigurationError) as caught, only_one(shared, "agent"):
            pass
        return str(caught.value)

    said = refused()
    assert "other users can enter it (mode 0755), and what is in it is of something else" in said
    assert [each.name for each in shared.iterdir()] == ["www"]
    assert shared.stat().st_mode & 0o777 == 0o755
    (shared / "lock").write_text("of something else")
    assert refused() == said.replace("(www)", "(lock)")
    (shared / "lock").unlink()
    _, _, remedy = said.rpartition("close it yourself: ")
    subprocess.run(remedy, shell=True, check=True)
    with only_one(shared, "agent"):
        pass


def test_a_folder_whose_lock_is_taken_keeps_its_mode(tmp_path: Path) -> None:
    with only_one(tmp_path, "agent"):
        tmp_path.chmod(0o755)
        with pytest.raises(ConflictError), only_one(tmp_path, "agent"):
            pass
        assert tmp_path.stat().st_mode & 0o777 == 0o755
    tmp_path.chmod(0o700)


def test_a_file_system_without_modes_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o755)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "chmod", lambda *_: None)
        make_private(tmp_path)
    (message,) = caplog.messages
    assert "can be entered by other users (mode 0755), and its file system keeps no" in message
    tmp_path.chmod(0o700)


def test_everyone_s_folder_is_no_state_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    with pytest.raises(ConfigurationError, match=r"is everyone's \(mode 1777\)"):
        make_private(tmp_path)
    assert tmp_path.stat().st_mode & 0o7777 == 0o1777
    tmp_path.chmod(0o700)


OTHER_USER = """
import os, sys
from pathlib import Path
from rootstock.common.errors import ConfigurationError
from rootstock.common.files import make_private
os.setgid(65534)
os.setuid(65534)
try:
    make_private(Path(sys.argv[1]))
except ConfigurationError as error:
    print(error)
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root may become another user")
def test_another_user_s_folder_is_refused() -> None:
    other = subprocess.run(
        [sys.executable, "-c", OTHER_USER, "/var"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "/var: other users can enter it (mode 0755), and it is another user's" in other.stdout
