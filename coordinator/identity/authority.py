"""The net's certificate authority and the coordinator's own certificate, in the state folder."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import (
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from rootstock.common.errors import ConfigurationError, IdentityError
from rootstock.common.files import read_capped, write_bytes
from rootstock.common.identity.certificates import (
    Authority,
    Role,
    authority_fingerprint,
    half_life,
    issue_client,
    issue_server,
    make_authority,
    make_authority_request,
    net_of,
    new_key,
    outside_authority,
    succeeds,
    to_pem,
)
from rootstock.common.identity.credentials import (
    MAX_PEM_BYTES,
    Credentials,
    key_to_pem,
    read_certificate,
    read_credentials,
)
from rootstock.common.identity.keys import (
    SigningKey,
    create_private,
    load,
    load_or_create,
    read_private,
)
from rootstock.coordinator.config import CoordinatorConfig
from rootstock.coordinator.paths import StatePaths

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """Return the present time."""
    return datetime.now(UTC)


def signing_key(paths: StatePaths) -> SigningKey:
    """Return the coordinator's Ed25519 key; made at the first start, and never again.

    Labs that have seen a plan have seen signatures: NotFoundError if the key of then is missing.
    """
    return load(paths.key) if paths.plan.exists() else load_or_create(paths.key)


class NetAuthority:
    """A net's authority, which issues certificates for as long as the configuration says."""

    def __init__(self, config: CoordinatorConfig, clock: Clock = utc_now) -> None:
        """Read the authority from the state folder; the first start makes it.

        NotFoundError if its key is gone: a new authority's certificates would be strangers to every
        lab that has joined. ConfigurationError if it is another net's.
        """
        self.clock = clock
        self.made = not StatePaths(config).authority.exists()
        """Whether this is the first start, which makes the authority."""
        self._lifetimes = config.identity
        self._paths = StatePaths(config)
        self._authority = _load_or_create(self._paths, config, clock())

    @property
    def certificate(self) -> x509.Certificate:
        """The authority's certificate, which every certificate of the net is checked against."""
        return self._authority.certificate

    @property
    def fingerprint(self) -> str:
        """What an invitation names, and people compare."""
        return authority_fingerprint(self.certificate)

    def issue(self, key: EllipticCurvePublicKey, role: Role, name: str) -> x509.Certificate:
        """Sign the certificate of a site or an operator."""
        lifetime = timedelta(days=self._lifetimes.client_days)
        return issue_client(self._authority, key, role, name, self.clock(), lifetime)

    def server(self) -> Credentials:
        """Return what the coordinator serves with; made anew at half of its lifetime."""
        path = self._paths.server_credentials
        if path.exists():
            found = read_credentials(path)
            mine = found.authority == self.certificate
            if mine and self.clock() < half_life(found.certificate):
                return found
        key, lifetime = new_key(), timedelta(days=self._lifetimes.server_days)
        certificate = issue_server(self._authority, key.public_key(), self.clock(), lifetime)
        made = Credentials(key, certificate, self.certificate)
        made.write(path)
        return made


def request_outside(config: CoordinatorConfig) -> Path:
    """Write a request for an outside authority to sign; the key that it is for stays here.

    Until what was signed is taken, no coordinator starts: it would make an authority of its own.
    """
    paths = StatePaths(config)
    create_private(paths.authority_key, key_to_pem(new_key()))
    request = make_authority_request(config.net, _key(paths.authority_key))
    write_bytes(paths.authority_request, request)
    return paths.authority_request


def take_outside(config: CoordinatorConfig, signed: Path, clock: Clock = utc_now) -> None:
    """Take what an outside authority signed: the net's certificate first, then what is above it.

    In place of the net's present authority only if labs that joined that know this one: the same
    key and subject. ConfigurationError otherwise, and for what `outside_authority` refuses.
    """
    paths = StatePaths(config)
    pem = read_capped(signed, MAX_PEM_BYTES, what="certificates")
    try:
        found = outside_authority(pem, config.net, _key(paths.authority_key).public_key(), clock())
    except IdentityError as error:
        raise ConfigurationError(
            f"{signed}: {error}; have {paths.authority_request} signed as it is "
            "(`rootstock coordinator init --request` writes it), and give that"
        ) from error
    if paths.authority.exists() and not succeeds(found, read_certificate(paths.authority)):
        raise ConfigurationError(
            f"{signed}: has another subject than {paths.authority}, which labs that joined know; "
            "have it signed with the same one"
        )
    write_bytes(paths.authority, pem)


def _load_or_create(paths: StatePaths, config: CoordinatorConfig, now: datetime) -> Authority:
    path = paths.authority
    if not path.exists():
        if paths.authority_request.exists():
            raise ConfigurationError(
                f"{paths.authority_request}: waits for an outside authority to sign it; take what "
                "it signed (rootstock coordinator init --authority FILE), or remove the request to "
                "have an authority of the net's own"
            )
        # The key first: a start that was cut short in between goes on with it. What it signed is
        # good below a certificate that is made anew, too.
        create_private(paths.authority_key, key_to_pem(new_key()))
        key, lifetime = _key(paths.authority_key), timedelta(days=config.identity.authority_days)
        write_bytes(path, to_pem(make_authority(config.net, key, now, lifetime).certificate))
    certificate, key = read_certificate(path), _key(paths.authority_key)
    if (net := net_of(certificate)) != config.net:
        raise ConfigurationError(
            f"{path}: is the authority of net '{net}', the configuration's is '{config.net}'; give "
            "each net a state folder of its own"
        )
    if key.public_key() != certificate.public_key():
        raise ConfigurationError(
            f"{paths.authority_key}: is not the key of the certificate {path}; put both back from "
            "one backup"
        )
    return Authority(key, certificate)


def _key(path: Path) -> EllipticCurvePrivateKey:
    try:
        key = load_pem_private_key(read_private(path), password=None)
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"{path}: holds no private key in PEM form: {error}") from error
    if not isinstance(key, EllipticCurvePrivateKey):
        raise ConfigurationError(f"{path}: holds another kind of key; put it back from a backup")
    return key
