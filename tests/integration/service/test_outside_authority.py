"""A net whose authority an outside one has signed: by the commands, over real connections."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import tomli_w

from rootstock.common.identity.certificates import authority_fingerprint
from rootstock.common.identity.credentials import read_credentials
from rootstock.site_agent.config import DataConfig, SiteConfig
from rootstock.site_agent.identity import IdentityFiles
from rootstock.site_agent.wire.client import CoordinatorClient
from tests.support import coordinator_server
from tests.support.coordinator_server import Running
from tests.support.outside_authority import OutsideAuthority
from tests.support.typed_commands import invite, rootstock


def test_labs_join_it_and_go_on_when_it_is_signed_again(tmp_path: Path) -> None:
    institute, state, config = OutsideAuthority(), tmp_path / "state", tmp_path / "c.toml"
    settings = coordinator_server.config(state)
    config.write_text(tomli_w.dumps(settings.model_dump(mode="json", exclude_none=True)))
    init = ("coordinator", "init", "--config", str(config), "--json")
    request = Path(json.loads(rootstock(tmp_path, *init, "--request"))["request"])
    assert "for an outside authority to sign it" in rootstock(tmp_path, *init, code=2)

    def signed(days: float) -> str:
        path = tmp_path / "signed.pem"
        path.write_bytes(institute.sign(request.read_bytes(), days=days))
        told = json.loads(rootstock(tmp_path, *init, "--authority", str(path)))
        assert told["issuer"] == "CN=Institute"
        fingerprint: str = told["ca"]
        return fingerprint

    first = signed(days=40)
    running = Running(state)
    try:
        line = invite(config, "cat-lab")["command"]
        assert line.endswith(first)
        rootstock(tmp_path / "lab", *line.split()[1:], "--state", "state")
    finally:
        running.stop()

    again = signed(days=400)
    assert again != first
    running = Running(state)
    lab = tmp_path / "lab" / "state"
    site = SiteConfig(
        site="cat-lab",
        coordinator=running.address,
        state=lab,
        category="cat",
        data=DataConfig(kind="digits"),
    )
    client = CoordinatorClient(site, threading.Event(), lambda *_: None)
    try:
        assert client.plan().plan.net == "animals"  # by what it has known since it joined
        client.renew()
        known = read_credentials(IdentityFiles(lab).credentials)
        assert authority_fingerprint(known.authority) == again
        assert client.plan().plan.net == "animals"
    finally:
        client.close()
        running.stop()
