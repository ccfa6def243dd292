"""An authority that is not the net's: it signs what a coordinator asks it for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from rootstock.common.identity.certificates import new_key

DAY = timedelta(days=1)


class OutsideAuthority:
    """The authority of an institute, with a certificate that it signed itself."""

    def __init__(self, name: str = "Institute") -> None:
        self._key = new_key()
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = self._builder(self._name, self._key.public_key(), 3650)
        constraints = x509.BasicConstraints(ca=True, path_length=1)
        builder = builder.add_extension(constraints, critical=True)
        self.certificate = builder.sign(self._key, SHA256())

    def sign(
        self,
        request: bytes,
        *,
        days: float = 365,
        subject: str | None = None,
        without: tuple[type[x509.ExtensionType], ...] = (),
        by: EllipticCurvePrivateKey | None = None,
    ) -> bytes:
        """Return a certificate for a request and the authority's own, PEM."""
        asked = x509.load_pem_x509_csr(request)
        name = asked.subject
        if subject is not None:
            name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
        builder = self._builder(name, asked.public_key(), days)
        for extension in asked.extensions:
            if not isinstance(extension.value, without):
                builder = builder.add_extension(extension.value, extension.critical)
        signed = builder.sign(by or self._key, SHA256())
        return signed.public_bytes(Encoding.PEM) + self.certificate.public_bytes(Encoding.PEM)

    def _builder(self, subject: x509.Name, key: Any, days: float) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - abs(2 * days) * DAY)
            .not_valid_after(now + days * DAY)
        )
