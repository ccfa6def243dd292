"""A measurement's roles are found from any folder, by a Python without the current one."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.benchmarks.harness.processes import command, environment

MODULE = "tests.support.checkout"


def test_a_module_of_the_checkout_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONSAFEPATH", "1")
    monkeypatch.delenv("PYTHONPATH", raising=False)
    before = dict(os.environ)
    without = subprocess.run(command(MODULE), cwd=tmp_path, env=before, capture_output=True)
    assert b"No module named 'tests'" in without.stderr
    subprocess.run(command(MODULE), cwd=tmp_path, env=environment(), check=True)
    assert dict(os.environ) == before


def test_what_the_user_has_on_the_path_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/of/the/user")
    assert environment()["PYTHONPATH"].split(os.pathsep)[0] == "/of/the/user"
