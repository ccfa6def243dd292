"""Commands that write to a full disk, a closed pipe, a terminal without the letters."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest

from rootstock.deploy.output import print_result, whole_output

ROOTSTOCK = f"{sys.executable} -m rootstock.deploy.cli.main"


def shell(line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", line.replace("rootstock", ROOTSTOCK)],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=120,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize(
    ("line", "codes", "said"),
    [
        ("rootstock --help > /dev/full", {5}, "error: standard output: No space left on device"),
        ("rootstock --version > /dev/full", {5}, "free space there, or write it elsewhere"),
        ("rootstock --help | true", {0, 1}, ""),
        ("rootstock --help | head -1", {0, 1}, ""),
        ("rootstock --help >&-", {0}, ""),
        ("rootstock --help 2>&-", {0}, ""),
        ("rootstock net log --config nowhere 2> /dev/full", {2}, ""),
        ("rootstock net log --config nowhere 2>&-", {2}, ""),
        ("rootstock net log --config nowhere 2>&1 | true", {0, 2}, ""),
    ],
)
def test_output_that_cannot_be_written(line: str, codes: set[int], said: str) -> None:
    done = shell(line)
    assert done.returncode in codes, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "latin-1"},
        {"PYTHONIOENCODING": "ascii:strict"},
        {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
        {"TERM": "dumb"},
        {"COLUMNS": "20"},
        {"NO_COLOR": "1"},
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "line", ["rootstock --help", "rootstock net log --config 犬.toml; test $? = 2"]
)
def test_a_terminal_that_lacks_letters(line: str, environment: dict[str, str]) -> None:
    done = shell(line, **environment)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def test_errors_of_sockets_are_not_taken_for_the_output_s() -> None:
    with pytest.raises(OSError, match="Cannot assign requested address"), whole_output():
        raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))


def test_what_a_peer_said_is_text(capfd: pytest.CaptureFixture[str]) -> None:
    """It neither ends a command as markup that is none, nor colours or moves what people read."""
    print_result({}, "[/b]: [red]gone[/red] \x1b[2J", as_json=False)
    assert capfd.readouterr().out == "[/b]: [red]gone[/red] \ufffd[2J\n"
