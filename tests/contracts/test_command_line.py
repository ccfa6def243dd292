"""The command line: what operators' scripts call is there, and what is none ends with 2."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.contracts.promises import require_promise
from tests.contracts.surface import command_line


def test_commands_are_as_recorded() -> None:
    require_promise(command_line.NAME, command_line.present())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "Usage:"),
        (("net",), "Usage:"),
        (("nosuch",), "nosuch"),
        (("net", "log", "--nosuch"), "--nosuch"),
        (("net", "export"), "--category"),
        (("net", "log", "--config", "x", "--limit", "0"), "--limit"),
    ],
)
def test_a_command_line_that_is_none_ends_with_2(words: tuple[str, ...], said: str) -> None:
    command = [sys.executable, "-m", "rootstock.deploy.cli.main", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 2, done.stderr
    assert said in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
