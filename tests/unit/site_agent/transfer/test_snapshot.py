"""A command beside the agent looks at the lab and leaves it as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from rootstock.common.errors import NotFoundError
from rootstock.site_agent.spool.spool import Spool
from rootstock.site_agent.transfer.snapshot import snapshot
from tests.support import digits_lab


def test_a_look_makes_no_key(tmp_path: Path) -> None:
    """Keys are made by those who join; a new one would be refused by the coordinator."""
    config = digits_lab.config(tmp_path / "state")
    with pytest.raises(NotFoundError, match="this lab has not joined"):
        snapshot(config, lambda *_: None, digits_lab.fail).__enter__()
    assert not config.state.exists()
    spool = Spool(config.state / "spool", digits_lab.fail, digits_lab.COORDINATOR.public_key)
    with spool.staging() as staging:
        manifest = digits_lab.untrained(staging)
        spool.commit(staging, manifest, "run")
    with pytest.raises(NotFoundError, match="this lab has not joined"):
        snapshot(config, lambda *_: None, digits_lab.fail).__enter__()
    assert not (config.state / "identity").exists()
