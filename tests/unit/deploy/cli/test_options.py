"""Where commands find their configuration."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from rootstock.deploy.cli import options
from rootstock.deploy.cli.commands import app


@pytest.mark.parametrize(
    ("words", "name"), [(["site", "status"], "site.toml"), (["net", "show"], "coordinator.toml")]
)
def test_a_configuration_is_found_here_or_else_on_the_machine(
    words: list[str], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, machine = tmp_path / "here", tmp_path / "machine"
    here.mkdir()
    machine.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr(options, "MACHINE", machine)

    def said(*more: str) -> str:
        ended = CliRunner().invoke(app, [*words, *more])
        assert ended.exit_code != 0
        return str(ended.exception) + ended.output

    # Which file is read shows by what is wrong with it.
    assert f"{name}: cannot be read (No such file or directory)" in said()
    (machine / name).write_text("machine = ")
    assert f"{machine / name}: is not TOML" in said()
    (here / name).write_text("here = ")
    assert f"{name}: is not TOML" in said()
    assert str(machine) not in said()
    assert f"{machine / name}: is not TOML" in said("--config", str(machine / name))
