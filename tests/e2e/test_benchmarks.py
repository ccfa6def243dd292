"""The measurements of a checkout run, from any folder, and print one JSON object."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.federation_processes import ROOTSTOCK

pytestmark = pytest.mark.e2e


def measured(folder: Path, *words: str) -> Any:
    command = [*ROOTSTOCK, "bench", *words, "--json"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_one_upload_is_timed(tmp_path: Path) -> None:
    row = measured(tmp_path, "transport", "--mebibytes", "1")
    assert row["payload_bytes"] > 1 << 20
    assert row["ratio"] > 0


def test_a_load_is_measured(tmp_path: Path) -> None:
    words = ("load", "--labs", "3", "--uploads", "1", "--mebibytes", "1")
    watched, uploading = measured(tmp_path, *words)["rows"]
    assert (watched["labs"], watched["uploads"]) == (3, 0)
    assert uploading["upload_mib_per_second"] > 0
    assert all(row["event_ms"] > 0 for row in (watched, uploading))
