from __future__ import annotations

import stat
from datetime import timedelta
from pathlib import Path

import pytest

from rootstock.common.errors import ConfigurationError, NotFoundError
from rootstock.common.identity.certificates import Role, new_key, read_identity, to_pem
from rootstock.coordinator.identity.authority import NetAuthority
from rootstock.coordinator.paths import StatePaths
from tests.support.members import Times, config

KEY = new_key().public_key()


def test_an_authority_is_made_once(tmp_path: Path) -> None:
    first, again = NetAuthority(config(tmp_path)), NetAuthority(config(tmp_path))
    assert first.fingerprint == again.fingerprint
    paths = StatePaths(config(tmp_path))
    assert stat.S_IMODE(paths.authority_key.stat().st_mode) == 0o600
    assert NetAuthority(config(tmp_path / "other")).fingerprint != first.fingerprint


def test_a_start_that_was_cut_short_goes_on(tmp_path: Path) -> None:
    first = NetAuthority(config(tmp_path))
    certificate = first.issue(KEY, Role.SITE, "cat-lab")
    StatePaths(config(tmp_path)).authority.unlink()
    again = NetAuthority(config(tmp_path))
    assert read_identity(to_pem(certificate), again.certificate).name == "cat-lab"


def test_a_lost_key_is_not_replaced(tmp_path: Path) -> None:
    NetAuthority(config(tmp_path))
    paths = StatePaths(config(tmp_path))
    paths.authority_key.unlink()
    with pytest.raises(NotFoundError, match=r"ca\.key.*from a backup"):
        NetAuthority(config(tmp_path))
    assert not paths.authority_key.exists()


def test_another_nets_authority_is_refused(tmp_path: Path) -> None:
    NetAuthority(config(tmp_path))
    with pytest.raises(ConfigurationError, match="of net 'digits', the configuration's is 'cats'"):
        NetAuthority(config(tmp_path, net="cats"))


def test_another_authoritys_key_is_refused(tmp_path: Path) -> None:
    for name in ("one", "other"):
        NetAuthority(config(tmp_path / name))
    mine, others = (StatePaths(config(tmp_path / name)) for name in ("one", "other"))
    others.authority_key.replace(mine.authority_key)
    with pytest.raises(ConfigurationError, match="is not the key of the certificate"):
        NetAuthority(config(tmp_path / "one"))


@pytest.mark.parametrize(("days", "renewed"), [(44.9, False), (45.1, True), (200, True)])
def test_the_server_certificate_is_renewed_at_half_life(
    tmp_path: Path, days: float, renewed: bool
) -> None:
    times = Times()
    authority = NetAuthority(config(tmp_path), times)
    first = authority.server()
    times.seconds.now += timedelta(days=days).total_seconds()
    second = NetAuthority(config(tmp_path), times).server()
    assert (first.chain_pem != second.chain_pem) is renewed
    assert second.certificate.not_valid_after_utc > times()
    assert stat.S_IMODE(StatePaths(config(tmp_path)).server_credentials.stat().st_mode) == 0o600


def test_the_configuration_says_how_long_certificates_are_good_for(tmp_path: Path) -> None:
    times = Times()
    authority = NetAuthority(config(tmp_path, client_days=2, server_days=3), times)
    now = times()
    assert authority.issue(KEY, Role.SITE, "a").not_valid_after_utc == now + timedelta(days=2)
    assert authority.server().certificate.not_valid_after_utc == now + timedelta(days=3)
