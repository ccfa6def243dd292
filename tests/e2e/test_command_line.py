"""The command line as an operator meets it: exit codes, and one clear sentence each."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest
import tomli_w

pytestmark = pytest.mark.e2e

COORDINATOR: dict[str, object] = {
    "net": "tiny",
    "plan": {"architecture": {"name": "small-vgg", "split": "pool1"}},
    "server": {"listen": "127.0.0.1:0"},
    "history": {"mlflow_uri": "http://127.0.0.1:9", "wait_seconds": 0.0},
}
SITE: dict[str, object] = {
    "site": "a-lab",
    "category": "zero",
    "data": {"kind": "digits", "class_name": "0"},
}


def run(*argv: str, prefix: str = "") -> subprocess.CompletedProcess[str]:
    code = prefix + "from rootstock.deploy.cli.main import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *argv], capture_output=True, text=True, timeout=120
    )


def config(folder: Path, values: dict[str, object], **changes: object) -> str:
    path = folder / "config.toml"
    path.write_text(tomli_w.dumps({**values, "state": str(folder / "state"), **changes}))
    return str(path)


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    return next(line for line in reversed(done.stderr.splitlines()) if line.startswith("error: "))


@pytest.mark.parametrize(
    ("command", "values"),
    [("coordinator", COORDINATOR), ("site", SITE)],
    ids=["coordinator", "site"],
)
def test_an_unknown_key(tmp_path: Path, command: str, values: dict[str, object]) -> None:
    done = run(command, "run", "--config", config(tmp_path, values, stat="x"))
    assert done.returncode == 2
    assert "unknown key 'stat'; did you mean 'state'?" in last_line(done)


def test_a_missing_file(tmp_path: Path) -> None:
    done = run("site", "run", "--config", str(tmp_path / "no.toml"))
    assert done.returncode == 2
    assert "no.toml: cannot be read" in last_line(done)


@pytest.mark.parametrize("package", ["ray", "mlflow", "sqlalchemy"])
def test_a_lab_without_the_coordinator_extra(tmp_path: Path, package: str) -> None:
    # An import of a package that sys.modules maps to None fails as if it were not installed.
    prefix = f"import sys; sys.modules['{package}'] = None; "
    path = config(tmp_path, COORDINATOR)
    done = run("coordinator", "run", "--config", path, prefix=prefix)
    assert done.returncode == 3
    assert "needs the coordinator extra" in last_line(done)
    assert "pip install 'rootstock-federation[coordinator]'" in last_line(done)


def test_a_lab_s_command_needs_no_extra(tmp_path: Path) -> None:
    names = ("ray", "mlflow", "sqlalchemy", "alembic", "boto3", "matplotlib")
    prefix = f"import sys; sys.modules.update(dict.fromkeys({names})); "
    done = run("site", "status", "--config", config(tmp_path, SITE), prefix=prefix)
    assert done.returncode == 11
    assert "no agent has run here yet" in last_line(done)


def test_a_port_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        path = config(tmp_path, COORDINATOR, server={"listen": listen})
        done = run("coordinator", "run", "--config", path)
    assert done.returncode == 6
    assert listen in last_line(done)


def test_a_lab_that_has_not_joined(tmp_path: Path) -> None:
    done = run("site", "run", "--config", config(tmp_path, SITE))
    assert done.returncode == 11
    assert "this lab has not joined" in last_line(done)
    assert "rootstock site join" in last_line(done)


def test_a_net_that_is_not_there(tmp_path: Path) -> None:
    done = run("net", "show", "--config", config(tmp_path, COORDINATOR))
    assert done.returncode == 11
    assert "no coordinator has run here" in last_line(done)


def test_a_demo_does_not_remove_a_folder_that_is_not_its_own(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    done = run("demo", "--state", str(tmp_path))
    assert done.returncode == 12
    assert (tmp_path / "thesis.tex").read_text() == "precious"


def test_help_names_the_groups() -> None:
    done = run("--help")
    assert done.returncode == 0
    for name in ("coordinator", "site", "net", "bench", "demo", "up"):
        assert name in done.stdout
