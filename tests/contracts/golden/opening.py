"""Opens a golden federation: a release's coordinator state, as it lies beside this file."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path
from typing import Any

import tomli_w

from rootstock.common.config import load
from rootstock.coordinator.app import open_context
from rootstock.coordinator.config import CoordinatorConfig
from rootstock.deploy.cli.commands import app

GOLDEN = Path(__file__).parent
CONFIG, STATE, EXPECTED = "coordinator.toml", "state.tar.xz", "expected.json"
ROOTSTOCK = (sys.executable, "-m", "rootstock.deploy.cli.main")
ENVIRONMENT = {"PYTHONPATH": str(Path(__file__).parents[3])}

READING: dict[str, tuple[str, ...]] = {
    "log": ("net", "log"),
    "log of a version off the line": ("net", "log", "--version", "9"),
    "show": ("net", "show"),
    "show of an older version": ("net", "show", "--version", "4"),
    "diff": ("net", "diff", "2", "10"),
    "diff of two branches": ("net", "diff", "9", "10"),
    "verify": ("net", "verify"),
    "verify of a version off the line": ("net", "verify", "--version", "9"),
    "plan": ("net", "plan"),
    "heads": ("coordinator", "heads", "show"),
}
"""What is asked of a golden federation without a server; the answers are in `EXPECTED`."""
PROCESSES = ("log", "verify")
"""Which of these are asked by processes of their own; a start takes longer than an answer."""


def releases() -> list[str]:
    """Return the releases that left a golden federation."""
    return sorted(path.parent.name for path in GOLDEN.glob(f"*/{EXPECTED}"))


def unpack(release: str, folder: Path) -> Path:
    """Unpack a release's state into a folder; return the path of its configuration there."""
    with tarfile.open(GOLDEN / release / STATE) as archive:
        archive.extractall(folder, filter="tar")
    config = folder / CONFIG
    config.write_bytes((GOLDEN / release / CONFIG).read_bytes())
    return config


def serve(config: Path, mlflow_uri: str) -> None:
    """Say in a configuration where its MLflow server and its state folder are on this machine."""
    values = tomllib.loads(config.read_text("utf-8"))
    values["history"]["mlflow_uri"] = mlflow_uri
    values["state"] = str(config.parent / values["state"])
    config.write_text(tomli_w.dumps(values), "utf-8")


def upgrade(config: Path) -> None:
    """Bring the database to the present schema, as a coordinator's start does.

    Commands that only look refuse a database of another schema and leave it as it is.
    """
    with open_context(load(config, CoordinatorConfig)):
        pass


def expected(release: str) -> dict[str, Any]:
    """Return what a release itself said of its golden federation."""
    found: dict[str, Any] = json.loads((GOLDEN / release / EXPECTED).read_text("utf-8"))
    return found


def rootstock(config: Path, *argv: str, code: int = 0) -> Any:
    """Run a command on a configuration, as a process; return its JSON.

    Commands that print nothing else take no `--json`: name it where it is one.
    """
    done = subprocess.run(
        [*ROOTSTOCK, *argv, "--config", config.name],
        cwd=config.parent,
        env={**os.environ, **ENVIRONMENT},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == code, (argv, done.returncode, done.stdout, done.stderr)
    return json.loads(done.stdout)


def answer(config: Path, *argv: str) -> Any:
    """Run a command on a configuration, in this process; return its JSON."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        app([*argv, "--config", str(config), "--json"], standalone_mode=False)
    return json.loads(printed.getvalue())
