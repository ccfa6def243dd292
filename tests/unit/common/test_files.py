from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rootstock.common.errors import ConflictError
from rootstock.common.files import only_one

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
