"""``site ledger``: it says what it knows, and where it knows nothing."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import pytest
from typer.testing import CliRunner, Result

from rootstock.common.errors import NotFoundError, SchemaError, StorageError
from rootstock.common.times import readable
from rootstock.deploy.cli.commands import app
from rootstock.site_agent.consent.ledger import Ledger, read_ledger


def show(folder: Path) -> Result:
    file = folder / "site.toml"
    file.write_text(
        f'site = "lab-0"\nstate = "{folder / "lab"}"\ncategory = "zero"\n[data]\nkind = "digits"\n'
    )
    return CliRunner().invoke(app, ["site", "ledger", "-c", str(file)])


def test_a_state_folder_that_no_agent_has_used_is_named(tmp_path: Path) -> None:
    shown = show(tmp_path)
    assert isinstance(shown.exception, NotFoundError)
    assert f"{tmp_path / 'lab'}: no agent has run here" in str(shown.exception)


def test_it_says_since_when_there_is_a_ledger(tmp_path: Path) -> None:
    """A lab has sent things before it kept one."""
    (tmp_path / "lab" / "identity").mkdir(parents=True)
    assert show(tmp_path).stdout == (
        "the ledger is empty: nothing has left this lab since it keeps one\n"
    )
    ledger = Ledger(tmp_path / "lab", "ab12")
    ledger.report("evl-0001", {}, "SchemaError: the question's \x1b[2J end, " + "and more " * 20)
    ledger.report("evl-0002", {"no_adapter.error": 12.5})
    lines = show(tmp_path).stdout.splitlines()
    begins, *_ = read_ledger(tmp_path / "lab")
    assert lines[0] == f"the ledger begins with {readable(begins.at)}"
    assert "  SchemaError: the question's \ufffd[2J end, and more" in lines[3]
    assert lines[-1] == "  no_adapter.error 12.5"
    assert max(map(len, lines)) <= 80


def test_what_cannot_be_read_is_an_error_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(tmp_path / "lab", "ab12")
    ledger.report("evl-0001", {})
    (path,) = (tmp_path / "lab" / "ledger").iterdir()
    path.write_bytes(b"{}\n" + path.read_bytes())
    shown = show(tmp_path)
    assert isinstance(shown.exception, SchemaError)
    assert f"line 1 of {path}" in str(shown.exception)

    def denied(*_: object) -> NoReturn:
        raise PermissionError(13, "denied")

    monkeypatch.setattr(Path, "iterdir", denied)
    shown = show(tmp_path)
    assert isinstance(shown.exception, StorageError)
    assert "give this user the right to it" in str(shown.exception)
