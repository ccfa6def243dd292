"""The files with which a process proves who it is in TLS, and knows its peer.

A private key and its certificate are one file, so that a renewal replaces both or neither.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from rootstock.common.errors import ConfigurationError, IdentityError, NotFoundError
from rootstock.common.files import read_capped, write_bytes
from rootstock.common.identity.certificates import net_of, parse, to_pem
from rootstock.common.identity.keys import read_private

MAX_PEM_BYTES = 16_384


@dataclass(frozen=True)
class Credentials:
    """A private key for TLS and its certificate, with the certificate of the net's authority."""

    key: EllipticCurvePrivateKey
    certificate: x509.Certificate
    authority: x509.Certificate

    @property
    def net(self) -> str:
        """The net that they are good for."""
        return net_of(self.authority)

    @property
    def key_pem(self) -> bytes:
        """The private key (PKCS #8, PEM)."""
        return key_to_pem(self.key)

    @property
    def chain_pem(self) -> bytes:
        """The certificate and its authority's, as they are sent in a handshake (PEM)."""
        return to_pem(self.certificate, self.authority)

    @property
    def authority_pem(self) -> bytes:
        """The certificate that a peer's must be signed with (PEM)."""
        return to_pem(self.authority)

    def write(self, path: Path) -> None:
        """Replace the file as a whole; only this user can read it."""
        write_bytes(path, self.key_pem + self.chain_pem, mode=0o600)


def read_credentials(path: Path) -> Credentials:
    """Read what `Credentials.write` wrote.

    NotFoundError if there is no such file; ConfigurationError if others can read it, or its parts
    do not belong together.
    """
    pem = read_private(path)
    try:
        key = load_pem_private_key(pem, password=None)
        certificate, authority = x509.load_pem_x509_certificates(pem)
    except (ValueError, TypeError) as error:
        raise ConfigurationError(
            f"{path}: does not hold a private key and two certificates in PEM form ({error}); put "
            "the file back from a backup, or join again"
        ) from error
    if not isinstance(key, EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise ConfigurationError(
            f"{path}: the private key is not the certificate's; put the file back from a backup, "
            "or join again"
        )
    return Credentials(key, certificate, authority)


def read_certificate(path: Path) -> x509.Certificate:
    """Read a certificate's file, PEM; one that is none is a ConfigurationError."""
    try:
        return parse(read_capped(path, MAX_PEM_BYTES, what="certificate"))
    except FileNotFoundError as error:
        raise NotFoundError(f"{path}: the certificate is not there") from error
    except IdentityError as error:
        raise ConfigurationError(f"{path}: {error}; put the file back from a backup") from error


def key_to_pem(key: EllipticCurvePrivateKey) -> bytes:
    """Return a private key as it is in a file (PKCS #8, PEM)."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
