"""X.509 certificates of a net: its authority, what the authority signs, and who a peer is.

A net has a certificate authority of its own. It signs one server certificate for the coordinator,
named by the net, and one client certificate for each site and operator, named by a URI:
``spiffe://NET/site/NAME`` or ``spiffe://NET/operator/NAME``. Pure: no files, no clock.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import pairwise

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from rootstock.common.errors import ConfigurationError, IdentityError, SchemaError

CLOCK_SKEW = timedelta(days=2)
"""How long before it is made a certificate is valid: other machines' clocks may be behind, and one
that was set wrong by a day, or by a zone, is to be no reason to call anybody."""

_NAME = r"[a-z0-9][a-z0-9._-]{0,62}"
_URI = re.compile(rf"spiffe://({_NAME})/(site|operator)/({_NAME})")
_FINGERPRINT = re.compile(r"sha256:[0-9a-f]{64}")


class Role(StrEnum):
    """What the holder of a client certificate is."""

    SITE = "site"
    OPERATOR = "operator"


@dataclass(frozen=True)
class Authority:
    """A net's certificate authority: its certificate, and the key that signs with it."""

    key: EllipticCurvePrivateKey
    certificate: x509.Certificate


@dataclass(frozen=True)
class Identity:
    """The holder of a client certificate, and how long the certificate says so."""

    net: str
    role: Role
    name: str
    serial: str
    """In hex."""
    not_before: datetime
    not_after: datetime

    def require_valid(self, now: datetime) -> None:
        """Raise IdentityError before and after the certificate's lifetime."""
        if now < self.not_before:
            raise IdentityError(
                f"the certificate of {self.role} '{self.name}' is valid from "
                f"{self.not_before:%F %T} UTC on, it is {now:%F %T} here; set the clocks "
                "(timedatectl set-ntp true)"
            )
        if now > self.not_after:
            raise IdentityError(
                f"the certificate of {self.role} '{self.name}' expired on {self.not_after:%F %T} "
                f"UTC; ask the coordinator's operator for an invitation (rootstock coordinator "
                f"invite {self.name} --again) and join with it"
            )


def new_key() -> EllipticCurvePrivateKey:
    """Make a private key for TLS: ECDSA on P-256, which every TLS library speaks."""
    return generate_private_key(SECP256R1())


def server_name(net: str) -> str:
    """Return the DNS name in a coordinator's certificate.

    It is the net's and no machine's: labs reach the coordinator through any address or tunnel.
    """
    return f"{net}.rootstock.invalid"


def make_authority(
    net: str, key: EllipticCurvePrivateKey, now: datetime, lifetime: timedelta
) -> Authority:
    """Make a net's certificate authority out of a key."""
    name = _subject(net)
    builder = _builder(key.public_key(), name, name, now, lifetime)
    for extension, critical in _authority_extensions(net):
        builder = builder.add_extension(extension, critical)
    return Authority(key, builder.sign(key, SHA256()))


def make_authority_request(net: str, key: EllipticCurvePrivateKey) -> bytes:
    """Return a request, PEM, for an outside authority to make a key that of a net's authority.

    It asks for what `make_authority` gives: an authority below which there is none, named by the
    net's URI.
    """
    builder = x509.CertificateSigningRequestBuilder().subject_name(_subject(net))
    for extension, critical in _authority_extensions(net):
        builder = builder.add_extension(extension, critical)
    return builder.sign(key, SHA256()).public_bytes(Encoding.PEM)


def outside_authority(
    pem: bytes, net: str, key: EllipticCurvePublicKey, now: datetime
) -> x509.Certificate:
    """Return the net's authority out of what an outside one signed: its certificate first, PEM.

    What follows in the file leads up to the outside authority, each signed by the next.
    IdentityError if it is none for this net and key, may not sign certificates, or is not valid
    now.
    """
    try:
        found, *above = x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise IdentityError(f"it holds no certificates in PEM form ({error})") from error
    if found.public_key() != key:
        raise IdentityError("its first certificate is for another key than the request")
    if (named := net_of(found)) != net:
        raise IdentityError(f"it is for the net '{named}', the configuration's is '{net}'")
    try:
        signs = found.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    except x509.ExtensionNotFound:
        signs = True  # RFC 5280, section 4.2.1.3: without it, any use
    if not signs:
        raise IdentityError("it may not sign certificates; ask for the key usage of the request")
    if not found.not_valid_before_utc <= now <= found.not_valid_after_utc:
        raise IdentityError(
            f"it is valid from {found.not_valid_before_utc:%F %T} to "
            f"{found.not_valid_after_utc:%F %T} UTC, it is {now:%F %T} here"
        )
    for lower, upper in pairwise((found, *above)):
        try:
            lower.verify_directly_issued_by(upper)
        except (ValueError, TypeError, InvalidSignature) as error:
            raise IdentityError(
                f"{lower.subject.rfc4514_string()} is not signed by the next in the file, "
                f"{upper.subject.rfc4514_string()}"
            ) from error
    return found


def succeeds(offered: x509.Certificate, known: x509.Certificate) -> bool:
    """Return whether an authority is a known one with another lifetime: no other key, no name."""
    return (offered.public_key(), offered.subject, net_of(offered)) == (
        known.public_key(),
        known.subject,
        net_of(known),
    )


def issue_server(
    authority: Authority, key: EllipticCurvePublicKey, now: datetime, lifetime: timedelta
) -> x509.Certificate:
    """Sign the certificate that a coordinator serves with."""
    name = server_name(net_of(authority.certificate))
    names = x509.SubjectAlternativeName([x509.DNSName(name)])
    leaf = _Leaf("coordinator", names, ExtendedKeyUsageOID.SERVER_AUTH)
    return _issue(authority, key, leaf, now, lifetime)


def issue_client(
    authority: Authority,
    key: EllipticCurvePublicKey,
    role: Role,
    name: str,
    now: datetime,
    lifetime: timedelta,
) -> x509.Certificate:
    """Sign a site's or an operator's certificate; its name was checked by the caller."""
    uri = f"spiffe://{net_of(authority.certificate)}/{role}/{name}"
    if _URI.fullmatch(uri) is None:
        raise SchemaError(f"{uri!r} is no name for a certificate; it has to fit {_URI.pattern}")
    leaf = _Leaf(name, _uris(uri), ExtendedKeyUsageOID.CLIENT_AUTH)
    return _issue(authority, key, leaf, now, lifetime)


def make_request(key: EllipticCurvePrivateKey) -> bytes:
    """Return a certificate signing request, PEM; it names nobody: the authority does."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, SHA256()).public_bytes(Encoding.PEM)


def requested_key(request: bytes) -> EllipticCurvePublicKey:
    """Return the key of a signing request whose sender has proved that the key is theirs.

    Whatever else the request asks for is not read: names and rights are the authority's to give.
    """
    try:
        parsed = x509.load_pem_x509_csr(request)
        key = parsed.public_key()
        proved = parsed.is_signature_valid
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm) as error:
        raise SchemaError(f"the certificate signing request cannot be read: {error}") from error
    if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP256R1):
        raise SchemaError("the certificate signing request has another key than ECDSA on P-256")
    if not proved:
        raise IdentityError("the certificate signing request is not signed by the key in it")
    return key


def read_identity(certificate: bytes, authority: x509.Certificate) -> Identity:
    """Return whom a client certificate, PEM, names; its lifetime is the caller's to check.

    IdentityError for one that the net's authority has not signed for a client, and for one that
    does not name exactly one site or operator of the net.
    """
    parsed = parse(certificate)
    try:
        parsed.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature) as error:
        raise IdentityError(
            "the certificate is not signed by this net's authority "
            f"({authority_fingerprint(authority)}); join this net"
        ) from error
    if ExtendedKeyUsageOID.CLIENT_AUTH not in _purposes(parsed):
        raise IdentityError("the certificate is none of a client; join to get one")
    try:
        extension = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        names = list(extension.value)
    except x509.ExtensionNotFound:
        names = []
    (uri,) = names if len(names) == 1 else (None,)
    if not isinstance(uri, x509.UniformResourceIdentifier):
        raise IdentityError(
            f"the certificate has {len(names)} names; a client's has exactly one, a URI"
        )
    named, net = _URI.fullmatch(uri.value), net_of(authority)
    if named is None or named[1] != net:
        raise IdentityError(
            f"the certificate names {uri.value[:200]!r}; spiffe://{net}/site/NAME is expected"
        )
    return Identity(
        net=net,
        role=Role(named[2]),
        name=named[3],
        serial=f"{parsed.serial_number:x}",
        not_before=parsed.not_valid_before_utc,
        not_after=parsed.not_valid_after_utc,
    )


def net_of(authority: x509.Certificate) -> str:
    """Return the net that an authority is of; IdentityError if it is none of a net."""
    try:
        extension = authority.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        uris = extension.value.get_values_for_type(x509.UniformResourceIdentifier)
        constraints = authority.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound as error:
        raise IdentityError("the certificate is none of a net's authority") from error
    found = re.fullmatch(rf"spiffe://({_NAME})", uris[0]) if len(uris) == 1 else None
    if found is None or not constraints.ca:
        raise IdentityError(f"the certificate, of {uris[:3]}, is none of a net's authority")
    return found[1]


def authority_fingerprint(authority: x509.Certificate) -> str:
    """Return what people compare, and what an invitation names: sha256: and 64 hex digits."""
    return f"sha256:{hashlib.sha256(authority.public_bytes(Encoding.DER)).hexdigest()}"


def check_fingerprint(text: str) -> str:
    """Return a fingerprint as it is compared; ConfigurationError if it is none."""
    given = text.strip().lower()
    if _FINGERPRINT.fullmatch(given) is None:
        raise ConfigurationError(
            f"fingerprint {text[:100]!r} is not sha256: and 64 hex digits; copy the whole line "
            "that `rootstock coordinator invite` printed"
        )
    return given


def half_life(certificate: x509.Certificate) -> datetime:
    """Return when a certificate is to be renewed: at half of its lifetime."""
    begin, end = certificate.not_valid_before_utc + CLOCK_SKEW, certificate.not_valid_after_utc
    return begin + (end - begin) / 2


def parse(pem: bytes) -> x509.Certificate:
    """Read the first certificate of a PEM text."""
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        raise IdentityError(f"the certificate cannot be read: {error}") from error


def to_pem(*certificates: x509.Certificate) -> bytes:
    """Return certificates as PEM, one after the other."""
    return b"".join(each.public_bytes(Encoding.PEM) for each in certificates)


@dataclass(frozen=True)
class _Leaf:
    """What a certificate of the authority's says of its holder."""

    subject: str
    names: x509.SubjectAlternativeName
    purpose: x509.ObjectIdentifier


def _issue(
    authority: Authority,
    key: EllipticCurvePublicKey,
    leaf: _Leaf,
    now: datetime,
    lifetime: timedelta,
) -> x509.Certificate:
    issuer = authority.certificate
    end = min(now + lifetime, issuer.not_valid_after_utc)
    return (
        _builder(key, _subject(leaf.subject), issuer.subject, now, end - now)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([leaf.purpose]), critical=False)
        .add_extension(leaf.names, critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()),
            critical=False,
        )
        .sign(authority.key, SHA256())
    )


def _builder(
    key: EllipticCurvePublicKey,
    subject: x509.Name,
    issuer: x509.Name,
    now: datetime,
    lifetime: timedelta,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + lifetime)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _authority_extensions(net: str) -> tuple[tuple[x509.ExtensionType, bool], ...]:
    """Return what makes a certificate one of a net's authority, and what of it is critical."""
    return (
        (x509.BasicConstraints(ca=True, path_length=0), True),
        (_usage(signs_certificates=True), True),
        (_uris(f"spiffe://{net}"), False),
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _uris(uri: str) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)])


def _purposes(certificate: x509.Certificate) -> list[x509.ObjectIdentifier]:
    try:
        return list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except x509.ExtensionNotFound:
        return []
