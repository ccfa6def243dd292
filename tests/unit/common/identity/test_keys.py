import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from rootstock.common.errors import ConfigurationError, IntegrityError, NotFoundError, SchemaError
from rootstock.common.identity.keys import SigningKey, fingerprint, load, load_or_create, verify


def test_a_key_is_made_once_and_read_back(tmp_path: Path) -> None:
    first = load_or_create(tmp_path / "keys" / "site.pem")
    again = load_or_create(tmp_path / "keys" / "site.pem")
    assert first.public_key == again.public_key
    assert len(first.public_key) == 32
    assert [p.name for p in (tmp_path / "keys").iterdir()] == ["site.pem"]


def test_only_its_owner_can_read_a_key(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        load_or_create(tmp_path / "site.pem")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "site.pem").stat().st_mode) == 0o600


def test_a_key_that_others_can_read_is_refused_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "site.pem"
    load_or_create(path)
    path.chmod(0o640)
    with pytest.raises(ConfigurationError, match=r"mode 0640.*chmod 600"):
        load_or_create(path)
    path.chmod(0o600)
    load_or_create(path)


def test_a_missing_key_is_told_and_stays_missing(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"site\.pem.*from a backup"):
        load(tmp_path / "keys" / "site.pem")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_holds_no_key_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "site.pem"
    path.write_bytes(b"hello")
    path.chmod(0o600)
    with pytest.raises(ConfigurationError, match="no private key"):
        load_or_create(path)
    assert path.read_bytes() == b"hello"


def test_another_kind_of_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "site.pem"
    pem = generate_private_key(SECP256R1()).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    path.write_bytes(pem)
    path.chmod(0o600)
    with pytest.raises(ConfigurationError, match="Ed25519"):
        load_or_create(path)


def test_processes_that_start_together_share_one_key(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path;"
        "from rootstock.common.identity.keys import load_or_create;"
        "print(load_or_create(Path(sys.argv[1])).public_key.hex())"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "site.pem")]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(4)]
    assert len({process.communicate(timeout=60)[0] for process in started}) == 1


def test_a_signature_holds_for_its_key_and_bytes_alone() -> None:
    key, other = SigningKey.generate(), SigningKey.generate()
    signature = key.sign(b"manifest")
    verify(key.public_key, signature, b"manifest", what="the manifest")
    for public_key, signed, data in [
        (other.public_key, signature, b"manifest"),
        (key.public_key, signature, b"another"),
        (key.public_key, signature[:-1] + bytes([signature[-1] ^ 1]), b"manifest"),
        (key.public_key, b"", b"manifest"),
    ]:
        with pytest.raises(IntegrityError, match="the manifest"):
            verify(public_key, signed, data, what="the manifest")


def test_a_public_key_of_the_wrong_length_is_named() -> None:
    with pytest.raises(SchemaError, match="has 31 bytes"):
        verify(bytes(31), bytes(64), b"", what="the manifest")


def test_fingerprints_tell_keys_apart() -> None:
    first, second = SigningKey.generate().public_key, SigningKey.generate().public_key
    assert fingerprint(first) == fingerprint(first)
    assert fingerprint(first) != fingerprint(second)
