from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from rootstock.common.errors import ConfigurationError, IdentityError, RootstockError, SchemaError
from rootstock.common.identity.certificates import (
    CLOCK_SKEW,
    Authority,
    Role,
    authority_fingerprint,
    check_fingerprint,
    half_life,
    issue_client,
    issue_server,
    make_authority,
    make_request,
    net_of,
    new_key,
    read_identity,
    requested_key,
    server_name,
    to_pem,
)

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
DAY = timedelta(days=1)
AUTHORITY = make_authority("digits", new_key(), NOW, 3650 * DAY)
KEY = new_key().public_key()


def site(name: str = "cat-lab", authority: Authority = AUTHORITY) -> x509.Certificate:
    return issue_client(authority, KEY, Role.SITE, name, NOW, 90 * DAY)


def forged(*names: x509.GeneralName, purpose: x509.ObjectIdentifier | None = None) -> bytes:
    """Return a certificate that the authority would never sign, signed by it."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "cat-lab")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(AUTHORITY.certificate.subject)
        .public_key(KEY)
        .serial_number(1)
        .not_valid_before(NOW - DAY)
        .not_valid_after(NOW + DAY)
        .add_extension(
            x509.ExtendedKeyUsage([purpose or ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return to_pem(builder.sign(AUTHORITY.key, SHA256()))


def uri(text: str) -> x509.UniformResourceIdentifier:
    return x509.UniformResourceIdentifier(text)


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("name", ["cat-lab", "a", "9..9", "lab_2.example.org", "x" * 63])
def test_a_certificate_says_who_has_it_and_for_how_long(role: Role, name: str) -> None:
    certificate = issue_client(AUTHORITY, KEY, role, name, NOW, 90 * DAY)
    found = read_identity(to_pem(certificate, AUTHORITY.certificate), AUTHORITY.certificate)
    assert (found.net, found.role, found.name) == ("digits", role, name)
    assert int(found.serial, 16) == certificate.serial_number
    assert (found.not_before, found.not_after) == (NOW - CLOCK_SKEW, NOW + 90 * DAY)


@pytest.mark.parametrize(
    ("seconds", "refusal"),
    [
        (-2 * 86_400 - 1, "valid from 2026-11-27 12:00:00 UTC.*timedatectl set-ntp true"),
        (-2 * 86_400, None),
        (0, None),
        (90 * 86_400, None),
        (90 * 86_400 + 1, "expired on 2027-02-27 12:00:00 UTC.*invite cat-lab --again"),
    ],
)
def test_a_certificate_is_good_within_its_lifetime(seconds: int, refusal: str | None) -> None:
    found = read_identity(to_pem(site()), AUTHORITY.certificate)
    at = NOW + timedelta(seconds=seconds)
    if refusal is None:
        found.require_valid(at)
        return
    with pytest.raises(IdentityError, match=refusal):
        found.require_valid(at)


NAMED = "spiffe://digits/site/cat-lab"


@pytest.mark.parametrize(
    ("certificate", "rule"),
    [
        (
            to_pem(site(authority=make_authority("digits", new_key(), NOW, DAY))),
            "not signed by this net's",
        ),
        (
            to_pem(site(authority=make_authority("animals", new_key(), NOW, DAY))),
            "not signed by this net's",
        ),
        (to_pem(issue_server(AUTHORITY, KEY, NOW, DAY)), "none of a client"),
        (to_pem(AUTHORITY.certificate), "none of a client"),
        (forged(uri(NAMED), purpose=ExtendedKeyUsageOID.SERVER_AUTH), "none of a client"),
        (forged(), "has 0 names"),
        (forged(uri(NAMED), uri("spiffe://digits/site/dog-lab")), "has 2 names"),
        (forged(uri(NAMED), uri(NAMED)), "has 2 names"),
        (forged(uri(NAMED), x509.DNSName("cat-lab")), "has 2 names"),
        (forged(x509.DNSName("cat-lab")), "has 1 names"),
        (forged(uri("spiffe://animals/site/cat-lab")), "names 'spiffe://animals/"),
        (forged(uri("spiffe://digits/site/cat-lab/operator/root")), "is expected"),
        (forged(uri("spiffe://digits/site/../operator/root")), "is expected"),
        (forged(uri("spiffe://digits/site/cat%2Dlab")), "is expected"),
        (forged(uri("spiffe://digits/site/cat-lab\n")), "is expected"),
        (forged(uri("spiffe://digits/site/Cat-lab")), "is expected"),
        (forged(uri("spiffe://digits/site/")), "is expected"),
        (forged(uri("spiffe://digits/site/" + "x" * 64)), "is expected"),
        (forged(uri("spiffe://digits/coordinator/cat-lab")), "is expected"),
        (forged(uri("https://digits/site/cat-lab")), "is expected"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "cannot be read"),
        (b"", "cannot be read"),
    ],
)
def test_a_wrong_certificate_names_nobody(certificate: bytes, rule: str) -> None:
    rightful = read_identity(forged(uri(NAMED)), AUTHORITY.certificate)
    assert rightful.name == "cat-lab"
    with pytest.raises(IdentityError, match=rule):
        read_identity(certificate, AUTHORITY.certificate)


@pytest.mark.parametrize(
    "name", ["", "Cat", "cat lab", "../etc", "cat/../dog", "a" * 64, "cat\n", "ä"]
)
def test_no_certificate_is_signed_for_what_is_no_name(name: str) -> None:
    with pytest.raises((SchemaError, ValueError)):
        issue_client(AUTHORITY, KEY, Role.SITE, name, NOW, DAY)


def constraints(certificate: x509.Certificate) -> tuple[bool, int | None]:
    found = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert found.critical
    return found.value.ca, found.value.path_length


def usage(certificate: x509.Certificate) -> tuple[bool, bool]:
    found = certificate.extensions.get_extension_for_class(x509.KeyUsage)
    assert found.critical
    return found.value.digital_signature, found.value.key_cert_sign


def test_only_the_authority_may_sign_certificates() -> None:
    assert constraints(AUTHORITY.certificate) == (True, 0)
    assert usage(AUTHORITY.certificate) == (False, True)
    for certificate in (site(), issue_server(AUTHORITY, KEY, NOW, DAY)):
        assert constraints(certificate) == (False, None)
        assert usage(certificate) == (True, False)


def test_the_server_certificate_names_the_net_and_no_machine() -> None:
    names = issue_server(AUTHORITY, KEY, NOW, DAY).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    assert names.value.get_values_for_type(x509.DNSName) == ["digits.rootstock.invalid"]
    assert server_name("digits") == "digits.rootstock.invalid"


def test_serial_numbers_are_not_used_twice() -> None:
    assert len({site().serial_number for _ in range(20)}) == 20


def test_nothing_outlives_the_authority() -> None:
    short = make_authority("digits", new_key(), NOW, DAY)
    assert site(authority=short).not_valid_after_utc == NOW + DAY
    assert half_life(short.certificate) == NOW + DAY / 2


def test_a_net_is_read_from_its_authority_alone() -> None:
    assert net_of(AUTHORITY.certificate) == "digits"
    with pytest.raises(IdentityError, match="none of a net's authority"):
        net_of(site())


def test_a_request_proves_its_key_and_asks_for_nothing() -> None:
    key = new_key()
    assert requested_key(make_request(key)) == key.public_key()


def _request(key: object) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    hashed = None if isinstance(key, Ed25519PrivateKey) else SHA256()
    return builder.sign(key, hashed).public_bytes(Encoding.PEM)  # type: ignore[arg-type]


def _resigned() -> bytes:
    """Return a request with the last byte of its signature changed."""
    der = bytearray(x509.load_pem_x509_csr(make_request(new_key())).public_bytes(Encoding.DER))
    der[-1] ^= 1
    return x509.load_der_x509_csr(bytes(der)).public_bytes(Encoding.PEM)


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (_request(Ed25519PrivateKey.generate()), SchemaError),
        (_request(generate_private_key(SECP384R1())), SchemaError),
        (_resigned(), IdentityError),
        (b"", SchemaError),
        (to_pem(AUTHORITY.certificate), SchemaError),
    ],
)
def test_another_request_is_refused(request_: bytes, error: type[RootstockError]) -> None:
    with pytest.raises(error):
        requested_key(request_)


def test_a_fingerprint_is_of_one_authority() -> None:
    mine = authority_fingerprint(AUTHORITY.certificate)
    other = authority_fingerprint(make_authority("digits", new_key(), NOW, DAY).certificate)
    assert mine != other
    assert check_fingerprint(f" {mine.upper()}\n") == mine


@pytest.mark.parametrize("text", ["", "sha256:", "a" * 64, "sha256:" + "g" * 64, "md5:" + "a" * 64])
def test_what_is_no_fingerprint_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="copy the whole line"):
        check_fingerprint(text)
