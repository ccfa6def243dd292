"""What a net takes for its authority out of an outside one's hands, and what it does not."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from rootstock.common.errors import ConfigurationError, NotFoundError
from rootstock.common.identity.certificates import Role, new_key, read_identity, to_pem
from rootstock.coordinator.identity.authority import NetAuthority, request_outside, take_outside
from tests.support.members import config
from tests.support.outside_authority import OutsideAuthority

KEY = new_key().public_key()


def taken(state: Path, pem: bytes, net: str = "digits") -> NetAuthority:
    signed = state / "signed.pem"
    signed.write_bytes(pem)
    take_outside(config(state, net), signed)
    return NetAuthority(config(state, net))


def test_what_it_signs_is_the_net_s(tmp_path: Path) -> None:
    institute = OutsideAuthority()
    request = request_outside(config(tmp_path))
    authority = taken(tmp_path, institute.sign(request.read_bytes()))
    certificate = authority.issue(KEY, Role.SITE, "cat-lab")
    assert read_identity(to_pem(certificate), authority.certificate).name == "cat-lab"
    assert authority.certificate.issuer == institute.certificate.subject
    # No longer than what is above it, whatever the configuration says.
    assert certificate.not_valid_after_utc <= authority.certificate.not_valid_after_utc


def test_no_authority_is_made_while_one_is_asked_for(tmp_path: Path) -> None:
    request = request_outside(config(tmp_path))
    with pytest.raises(ConfigurationError, match=r"ca\.csr: waits for .* --authority FILE"):
        NetAuthority(config(tmp_path))
    request.unlink()  # the other remedy
    assert NetAuthority(config(tmp_path)).made


def test_labs_know_one_that_is_signed_again(tmp_path: Path) -> None:
    institute = OutsideAuthority()
    request = request_outside(config(tmp_path)).read_bytes()
    first = taken(tmp_path, institute.sign(request, days=30))
    certificate = first.issue(KEY, Role.SITE, "cat-lab")
    assert request_outside(config(tmp_path)).read_bytes() != b""  # asked again: the same key
    again = taken(tmp_path, institute.sign(request, days=300))
    assert again.fingerprint != first.fingerprint
    assert read_identity(to_pem(certificate), again.certificate).name == "cat-lab"


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "of another time": ({"days": -1}, "it is valid from"),
    "no authority": ({"without": (x509.BasicConstraints,)}, "none of a net's authority"),
    "of no net": ({"without": (x509.SubjectAlternativeName,)}, "none of a net's authority"),
    "signed by another": ({"by": new_key()}, "is not signed by the next"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_it_did_not_sign_as_asked_is_refused(tmp_path: Path, case: str) -> None:
    settings, said = REFUSED[case]
    institute = OutsideAuthority()
    request = request_outside(config(tmp_path)).read_bytes()
    with pytest.raises(ConfigurationError, match=said):
        taken(tmp_path, institute.sign(request, **settings))
    assert taken(tmp_path, institute.sign(request))


def test_another_net_s_or_key_s_is_refused(tmp_path: Path) -> None:
    institute = OutsideAuthority()
    requests = {
        name: request_outside(config(tmp_path / name, net)).read_bytes()
        for name, net in (("one", "digits"), ("two", "digits"), ("three", "cats"))
    }
    with pytest.raises(ConfigurationError, match="for another key"):
        taken(tmp_path / "one", institute.sign(requests["two"]))
    with pytest.raises(ConfigurationError, match=re.escape("it is for the net 'cats'")):
        taken(tmp_path / "three", institute.sign(requests["three"]), net="digits")
    with pytest.raises(ConfigurationError, match="no certificates in PEM form"):
        taken(tmp_path / "one", b"nonsense")
    (tmp_path / "never asked").mkdir()
    with pytest.raises(NotFoundError, match=r"ca\.key"):
        taken(tmp_path / "never asked", institute.sign(requests["one"]))


def test_one_that_labs_would_not_know_is_refused(tmp_path: Path) -> None:
    institute = OutsideAuthority()
    first = NetAuthority(config(tmp_path))
    request = request_outside(config(tmp_path)).read_bytes()
    with pytest.raises(ConfigurationError, match="another subject"):
        taken(tmp_path, institute.sign(request, subject="elsewhere"))
    assert NetAuthority(config(tmp_path)).fingerprint == first.fingerprint
    # A net's own authority may be put below an outside one: the same key, the same name.
    assert taken(tmp_path, institute.sign(request)).certificate.issuer != first.certificate.issuer
