"""``rootstock coordinator invite`` and ``join``, ``rootstock site join``: as people type them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from rootstock.common.config import load
from rootstock.common.errors import ConfigurationError
from rootstock.site_agent.config import SiteConfig
from rootstock.site_agent.identity import site_credentials
from tests.support.typed_commands import invite, rootstock


def test_the_line_that_is_printed_is_the_line_that_joins(config: Path, tmp_path: Path) -> None:
    line = rootstock(config.parent, "coordinator", "invite", "cat-lab", "--config", str(config))
    program, *words = line.split()
    assert program == "rootstock"
    lab = tmp_path / "lab"
    said = rootstock(lab, *words)
    assert "joined net animals as cat-lab" in said
    with pytest.raises(ConfigurationError, match="'category' = 'FILL-IN'"):
        load(lab / "site.toml", SiteConfig)
    filled = (lab / "site.toml").read_text().replace("FILL-IN", "cat")
    (lab / "site.toml").write_text(filled)
    settings = load(lab / "site.toml", SiteConfig)
    assert (settings.site, settings.share_samples) == ("cat-lab", 0)
    assert site_credentials(settings).net == "animals"


def test_no_editor_is_needed(config: Path, tmp_path: Path) -> None:
    """And a name that no folder has is told before the invitation is used up."""
    images = tmp_path / "my images"
    for name in ("cat", "dog"):
        (images / name).mkdir(parents=True)
        Image.new("RGB", (8, 8), "red").save(images / name / "one.png")
    words = invite(config, "cat-lab")["command"].split()[1:]
    lab = tmp_path / "lab"
    told = rootstock(lab, *words, "--category", "cow", "--data", str(images), code=4)
    assert "'cow'" in told
    assert "cat, dog" in told
    told = rootstock(lab, *words, "--category", "cat", code=2)
    assert "give both or neither" in told
    said = rootstock(lab, *words, "--category", "cat", "--data", "../my images")
    assert "rootstock site check --config site.toml" in said
    settings = load(lab / "site.toml", SiteConfig)
    assert (settings.category, settings.data.path) == ("cat", images)
    assert "FILL-IN" not in (lab / "site.toml").read_text()
    again = invite(config, "dog-lab")["command"].split()[1:]
    told = rootstock(lab, *again, "--category", "dog", "--data", str(images), code=2)
    assert "site.toml is there already" in told


def test_a_site_toml_that_is_there_is_left_as_it_is(config: Path, tmp_path: Path) -> None:
    lab = tmp_path / "lab"
    lab.mkdir()
    (lab / "site.toml").write_text("# mine\n")
    words = invite(config, "cat-lab")["command"].split()[1:]
    said = rootstock(lab, *words)
    assert 'site.toml is left as it is; it needs site = "cat-lab"' in said
    assert (lab / "site.toml").read_text() == "# mine\n"


@pytest.mark.parametrize("source", ["file", "environment"])
def test_a_token_need_not_be_on_the_command_line(config: Path, tmp_path: Path, source: str) -> None:
    made = invite(config, "cat-lab")
    words = ["site", "join", made["address"], "--ca", made["ca"], "--json"]
    told = rootstock(tmp_path / "lab", *words, code=2)
    assert "give --token or --token-file, or set ROOTSTOCK_TOKEN" in told
    (tmp_path / "token").write_text(f"{made['token']}\n")
    if source == "file":
        answer = rootstock(tmp_path / "lab", *words, "--token-file", str(tmp_path / "token"))
    else:
        answer = rootstock(tmp_path / "lab", *words, ROOTSTOCK_TOKEN=made["token"])
    assert json.loads(answer)["site"] == "cat-lab"


def test_an_operator_at_another_machine_does_what_the_invitation_was_for(
    config: Path, tmp_path: Path
) -> None:
    line = invite(config, "ann", "--role", "view")["command"]
    desk = tmp_path / "desk"
    said = rootstock(desk, *line.split()[1:])
    assert "operator ann of net animals" in said
    own = str(desk / "rootstock-operator" / "coordinator.toml")
    status = json.loads(rootstock(desk, "coordinator", "status", "--config", own, "--json"))
    assert status["net"] == "animals"
    members = json.loads(rootstock(desk, "coordinator", "sites", "--config", own, "--json"))
    assert {each["name"]: each["access"] for each in members["members"]} == {
        "ann": "view",
        "local": "admin",
    }
    told = rootstock(desk, "coordinator", "invite", "bob", "--config", own, code=9)
    assert "'ann' has access 'view', which does not allow" in told
    rootstock(
        tmp_path,
        "coordinator",
        "revoke",
        "ann",
        "--operator",
        "--reason",
        "left",
        "--config",
        str(config),
    )
    told = rootstock(desk, "coordinator", "status", "--config", own, code=9)
    assert "was revoked: left" in told


@pytest.mark.parametrize("ttl", ["", "24", "1w", "0h", "31d", "-1h"])
def test_a_time_to_live_is_a_number_and_a_unit(config: Path, ttl: str) -> None:
    told = rootstock(
        config.parent, "coordinator", "invite", "cat-lab", f"--ttl={ttl}", "--config", str(config),
        code=2,
    )  # fmt: skip
    assert "give a number and s, m, h or d" in told


def test_a_home_is_meant_as_in_settings(config: Path, tmp_path: Path) -> None:
    """The folder that the command makes is the one that its site.toml names."""
    words = invite(config, "cat-lab")["command"].split()[1:]
    home = tmp_path / "home"
    said = rootstock(tmp_path / "lab", *words, "--state", "$NOBODYS/keys", code=2)
    assert "there is no $NOBODYS here" in said
    rootstock(tmp_path / "lab", *words, "--state", "$HOME/keys", HOME=str(home))
    assert (home / "keys" / "identity" / "site.key").exists()
    text = (tmp_path / "lab" / "site.toml").read_text().replace("FILL-IN", "cat")
    (tmp_path / "lab" / "site.toml").write_text(text)
    assert load(tmp_path / "lab" / "site.toml", SiteConfig).state == home / "keys"
