"""Real full and read-only disks: a tmpfs of one MiB in a mount namespace of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.checkout import CHECKOUT

_PRELUDE = """
import sys
from pathlib import Path
from rootstock.common.errors import StorageError
disk = Path(sys.argv[1])
"""


def run_on_disk(tmp_path: Path, script: str, *, read_only: bool = False) -> str:
    """Run a script whose `disk` is a folder on a disk of 1 MiB; return what it prints.

    Of a read-only disk, `disk` holds what the script wrote above the line "# read-only".
    """
    disk = tmp_path / "disk"
    disk.mkdir()
    before, _, after = script.partition("# read-only")
    programs = [_PRELUDE + before, _PRELUDE + after] if read_only else [_PRELUDE + script]
    paths = []
    for number, program in enumerate(programs):
        paths.append(tmp_path / f"program{number}.py")
        paths[-1].write_text(program)
    steps = [f"mount -t tmpfs -o size=1m tmpfs {disk}"]
    for number, path in enumerate(paths):
        if number:
            steps.append(f"mount -o remount,ro {disk}")
        steps.append(f"{sys.executable} {path} {disk}")
    probe = subprocess.run(["unshare", "-rm", "true"], capture_output=True)
    if probe.returncode:
        pytest.skip("this kernel gives no mount namespaces")
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-ec", "\n".join(steps)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=CHECKOUT,
        env={"PYTHONPATH": str(CHECKOUT), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
