"""The wheel: what is in it, and that it works where there is no checkout."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from rootstock.common.errors import MissingExtraError
from tests.support.checkout import CHECKOUT

SOURCES = (
    "pyproject.toml", "README.md", "LICENSE",
    "rootstock", "common", "coordinator", "deploy", "protos", "site_agent",
)  # fmt: skip
EXTRAS = (
    "alembic", "boto3", "click", "grpc_health", "grpc_reflection", "jinja2", "matplotlib",
    "mlflow", "ray", "scipy", "sklearn", "sqlalchemy", "tomli_w",
)  # fmt: skip
"""Modules that no base dependency brings: a lab has none of them."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy, so that the checkout gets no build folder."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in SOURCES:
        if (CHECKOUT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
            shutil.copytree(CHECKOUT / name, source / name, symlinks=True, ignore=ignored)
        else:
            shutil.copy(CHECKOUT / name, source / name)
    options = ("--no-deps", "--no-build-isolation", "--quiet", "--disable-pip-version-check")
    pip = [sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", str(folder)]
    subprocess.run([*pip, str(source)], check=True, timeout=240, env=_environment())
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel where this environment's packages are, and the checkout is not.

    Returns the folder of the environment's programs.
    """
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    options = ("--no-deps", "--no-index", "--quiet", "--disable-pip-version-check")
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", *options, str(wheel)]
    subprocess.run(pip, check=True, timeout=240, env=_environment())
    # A path that a .pth file names is searched, and its own .pth files (the checkout's) are not.
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "shared.pth").write_text(sysconfig.get_path("purelib") + "\n", "utf-8")
    return python.parent


def _environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}


def _run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=folder, env=_environment(), capture_output=True, text=True, timeout=240
    )


def test_it_holds_the_product_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    tops = {name.partition("/")[0] for name in names}
    (info,) = tops - {"rootstock"}
    assert re.fullmatch(r"rootstock_federation-.+\.dist-info", info)
    assert [name for name in names if "test" in name or "benchmark" in name] == []
    # Every file that the code reads is in, beside the code.
    wanted = {
        f"rootstock/{path.relative_to(CHECKOUT).as_posix()}"
        for package in SOURCES
        for path in (CHECKOUT / package).glob("**/*")
        if path.suffix in (".py", ".pyi", ".proto", ".toml", ".mako", ".html", ".typed")
        and package not in ("rootstock", "pyproject.toml")
    }
    wanted |= {"rootstock/__init__.py", "rootstock/py.typed"}
    assert wanted - names == set()
    assert {
        "rootstock/coordinator/history/report.html",
        "rootstock/coordinator/registry/migrations/script.py.mako",
        "rootstock/coordinator/registry/migrations/versions/0004_first.py",
        "rootstock/deploy/examples/digits.toml",
        "rootstock/protos/rootstock/federation/v1/federation_pb2.pyi",
        f"{info}/licenses/LICENSE",
    } <= names


def test_everything_is_imported_by_one_name(installed: Path, tmp_path: Path) -> None:
    code = "import rootstock, rootstock.common.errors; print(rootstock.__file__)"
    done = _run([str(installed / "python"), "-c", code], tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(installed.parent))
    for name in ("common", "coordinator", "site_agent", "deploy", "protos", "tests"):
        done = _run([str(installed / "python"), "-c", f"import {name}"], tmp_path)
        assert f"No module named '{name}'" in done.stderr


def test_its_command_says_which_version_it_is(wheel: Path, installed: Path, tmp_path: Path) -> None:
    done = _run([str(installed / "rootstock"), "--version"], tmp_path)
    assert done.stdout == f"rootstock {wheel.name.split('-')[1]}\n"


def test_the_measurements_are_elsewhere(installed: Path, tmp_path: Path) -> None:
    done = _run([str(installed / "rootstock"), "bench", "transport", "--json"], tmp_path)
    assert done.returncode == MissingExtraError.exit_code
    assert "part of a checkout" in done.stderr


def test_a_lab_needs_no_more_than_the_base(installed: Path, tmp_path: Path) -> None:
    config = 'site = "a"\ncategory = "b"\nstate = "state"\n[data]\nkind = "digits"\n'
    (tmp_path / "site.toml").write_text(config, "utf-8")
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({EXTRAS})); sys.argv[0] = 'rootstock'\n"
        "from rootstock.deploy.cli.main import main; main()"
    )
    python = [str(installed / "python"), "-c", code]
    done = _run([*python, "site", "status", "--config", "site.toml"], tmp_path)
    assert done.returncode == 11, done.stderr
    assert "no agent has run here yet" in done.stderr
    done = _run([*python, "site", "run", "--nosuch"], tmp_path)
    assert (done.returncode, "--nosuch" in done.stderr) == (2, True), done.stderr
    done = _run([*python, "demo"], tmp_path)
    assert done.returncode == MissingExtraError.exit_code
    assert "pip install 'rootstock-federation[coordinator]'" in done.stderr


def test_the_demo_finds_its_example(installed: Path, tmp_path: Path) -> None:
    code = (
        "from rootstock.deploy.cli.federation import demo_file\n"
        "from rootstock.deploy.federation.config import read\n"
        "with demo_file() as file: print(read(file).net)"
    )
    done = _run([str(installed / "python"), "-c", code], tmp_path)
    assert done.stdout == "digits\n", done.stderr
