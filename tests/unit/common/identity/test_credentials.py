from __future__ import annotations

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from rootstock.common.errors import ConfigurationError, NotFoundError
from rootstock.common.identity.certificates import (
    Role,
    issue_client,
    make_authority,
    new_key,
    to_pem,
)
from rootstock.common.identity.credentials import Credentials, read_certificate, read_credentials

NOW = datetime.now(UTC)
DAY = timedelta(days=1)
AUTHORITY = make_authority("digits", new_key(), NOW, DAY)


def credentials() -> Credentials:
    key = new_key()
    certificate = issue_client(AUTHORITY, key.public_key(), Role.SITE, "cat-lab", NOW, DAY)
    return Credentials(key, certificate, AUTHORITY.certificate)


def test_key_and_certificates_are_one_file_that_only_its_owner_reads(tmp_path: Path) -> None:
    path = tmp_path / "identity" / "tls.pem"
    written = credentials()
    written.write(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    found = read_credentials(path)
    assert (found.key_pem, found.chain_pem) == (written.key_pem, written.chain_pem)
    assert found.net == "digits"
    renewed = credentials()
    renewed.write(path)
    assert read_credentials(path).chain_pem == renewed.chain_pem
    assert [each.name for each in path.parent.iterdir()] == ["tls.pem"]


def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tls.pem"
    credentials().write(path)
    path.chmod(0o644)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        read_credentials(path)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"tls\.pem"):
        read_credentials(tmp_path / "tls.pem")
    with pytest.raises(NotFoundError, match=r"ca\.pem"):
        read_certificate(tmp_path / "ca.pem")


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (b"", "does not hold"),
        (credentials().key_pem, "does not hold"),
        (credentials().chain_pem, "does not hold"),
        (credentials().key_pem + to_pem(credentials().certificate), "does not hold"),
        (credentials().key_pem + credentials().chain_pem, "is not the certificate's"),
    ],
)
def test_parts_that_do_not_belong_together_are_refused(
    tmp_path: Path, content: bytes, rule: str
) -> None:
    path = tmp_path / "tls.pem"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ConfigurationError, match=rule):
        read_credentials(path)
