"""Members of a net: sites and operators who were invited, joined, and may be turned away."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from socket import getfqdn

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from pydantic import TypeAdapter

from rootstock.common.documents import schema_errors
from rootstock.common.errors import ConfigurationError, ConflictError, IdentityError, IntegrityError
from rootstock.common.files import only_one
from rootstock.common.identity.certificates import Role, half_life, new_key, requested_key
from rootstock.common.identity.credentials import Credentials, read_credentials
from rootstock.common.identity.keys import verify
from rootstock.common.nets.spec import Name
from rootstock.common.protocol import join_bytes
from rootstock.common.transport.channel import Address, parse_address
from rootstock.coordinator.config import CoordinatorConfig
from rootstock.coordinator.identity.authority import NetAuthority
from rootstock.coordinator.paths import StatePaths
from rootstock.coordinator.registry import COORDINATOR, Access, Certificate, Registry

LOCAL_OPERATOR = "local"
"""The operator who works at the coordinator's machine: the one who can read its state folder."""


@dataclass(frozen=True)
class Offer:
    """An invitation as it is given to whoever is to join."""

    token: str
    address: str
    """host:port of the listener that takes it."""
    authority: str
    """The fingerprint of the net's authority."""


@dataclass(frozen=True)
class JoinRequest:
    """What someone who was invited sends."""

    token: str
    certificate_request: bytes
    signing_key: bytes
    """Ed25519, 32 raw bytes; empty of an operator, who signs nothing."""
    proof: bytes
    """The signature of `join_bytes` by the signing key."""


@dataclass(frozen=True)
class Joined:
    """A new member: its name and its first certificate."""

    name: str
    access: Access
    certificate: x509.Certificate


@dataclass(frozen=True)
class MemberState:
    """A site or an operator as `coordinator sites` lists it; times are seconds since the epoch."""

    name: str
    access: Access
    state: str
    """active, disabled, revoked, expired; of who has not joined yet invited."""
    reason: str
    expires_at: float | None
    """Of the newest certificate, or of the invitation."""


class Members:
    """What may be done about who is a member."""

    def __init__(
        self, registry: Registry, authority: NetAuthority, config: CoordinatorConfig
    ) -> None:
        self._registry = registry
        self._authority = authority
        self._config = config
        self._paths = StatePaths(config)

    @property
    def made(self) -> bool:
        """Whether the net's authority was made just now."""
        return self._authority.made

    @property
    def authority(self) -> x509.Certificate:
        """The certificate of the net's authority."""
        return self._authority.certificate

    def invite(self, name: str, access: Access, seconds: float, *, again: bool = False) -> Offer:
        """Invite a member under a name, for so many seconds.

        ConflictError if the name is taken, unless its member is to join `again`;
        ConfigurationError if the coordinator listens to nobody who joins.
        """
        with schema_errors("name"):
            TypeAdapter(Name).validate_python(name)
        if name in (COORDINATOR, LOCAL_OPERATOR):
            raise ConflictError(f"the name '{name}' is the coordinator's own; choose another name")
        address = self._join_address()
        token = self._registry.invitations.create(name, access, seconds, again=again)
        return Offer(token, address, self._authority.fingerprint)

    def _join_address(self) -> str:
        """Return where who is invited reaches the coordinator."""
        server = self._config.server
        if server.join_listen is None:
            raise ConfigurationError(
                "server.join_listen is not set, so that nobody can join; set it to host:port in "
                "coordinator.toml and start the coordinator"
            )
        listen = parse_address(server.join_listen)
        with suppress(FileNotFoundError):
            # The port that it has, or had last.
            listen = parse_address(self._paths.join_address.read_text("utf-8"))
        if listen.port == 0:
            raise ConfigurationError(
                f'server.join_listen = "{server.join_listen}" takes any free port; start the '
                "coordinator, which then knows it, or name one"
            )
        host = server.host or (getfqdn() if listen.unspecified else listen.host)
        return str(Address(host, listen.port))

    def join(self, request: JoinRequest) -> Joined:
        """Trade an invitation for a certificate.

        The invitation is used up before anything is signed: what comes to grief after that needs
        another one.
        """
        key = requested_key(request.certificate_request)
        if request.signing_key:
            token_id = request.token.partition(".")[0]
            signed = join_bytes(token_id, request.certificate_request)
            try:
                verify(request.signing_key, request.proof, signed, what="the request to join")
            except IntegrityError as error:
                raise IdentityError(str(error)) from error
        invitation = self._registry.invitations.redeem(request.token, request.signing_key)
        certificate = self.issue(invitation.name, invitation.access, key)
        return Joined(invitation.name, invitation.access, certificate)

    def enrol(self, name: str, request: bytes, signing_key: bytes) -> x509.Certificate:
        """Make a site a member without an invitation: whoever has this state folder may.

        ConflictError if the name belongs to another key.
        """
        key = requested_key(request)
        self._registry.sites.join(name, signing_key)
        return self.issue(name, Access.SITE, key)

    def issue(self, name: str, access: Access, key: EllipticCurvePublicKey) -> x509.Certificate:
        """Sign a member's certificate, recorded before it is handed out."""
        role = Role.SITE if access is Access.SITE else Role.OPERATOR
        certificate = self._authority.issue(key, role, name)
        self._registry.certificates.add(
            f"{certificate.serial_number:x}",
            name,
            access,
            certificate.not_valid_after_utc.timestamp(),
        )
        return certificate

    def local_operator(self) -> Credentials:
        """Return the local operator's credentials, in the state folder; renewed at half-life."""
        path = self._paths.operator_credentials
        if path.exists():
            found = read_credentials(path)
            certificates = self._registry.certificates.all()
            known = {each.serial for each in certificates if each.revoked_at is None}
            if (
                found.authority == self._authority.certificate
                and self._authority.clock() < half_life(found.certificate)
                and f"{found.certificate.serial_number:x}" in known
            ):
                return found
        key = new_key()
        certificate = self.issue(LOCAL_OPERATOR, Access.ADMIN, key.public_key())
        made = Credentials(key, certificate, self._authority.certificate)
        made.write(path)
        return made

    def disable(self, name: str, reason: str) -> None:
        """Refuse a site's calls until it is enabled."""
        self._registry.sites.disable(name, reason)

    def enable(self, name: str) -> None:
        """Take a site's calls again."""
        self._registry.sites.enable(name)

    def revoke(self, name: str, reason: str, *, operator: bool = False) -> int:
        """Revoke all certificates of a site or an operator; return how many were good till now."""
        access = Access.ADMIN if operator else Access.SITE
        revoked = self._registry.certificates.revoke(name, access, reason)
        if operator and name == LOCAL_OPERATOR:
            self.local_operator()  # who can read the state folder is the operator, by another key
        return revoked

    def list_members(self) -> list[MemberState]:
        """Return members and those who are invited, sites first."""
        now = self._authority.clock().timestamp()
        return sorted(
            _states(self._registry, now), key=lambda each: (each.access != Access.SITE, each.name)
        )


@contextmanager
def open_members(config: CoordinatorConfig) -> Iterator[Members]:
    """Open who is a member as the state folder's only writer, with an authority made if missing.

    ConflictError if a coordinator runs there.
    """
    paths = StatePaths(config)
    with only_one(paths.state, "coordinator"):
        registry = Registry(paths.database)
        try:
            members = Members(registry, NetAuthority(config), config)
            members.local_operator()
            yield members
        finally:
            registry.close()


def _states(registry: Registry, now: float) -> Iterator[MemberState]:
    newest = {(each.name, each.access is Access.SITE): each for each in registry.certificates.all()}
    for site in registry.sites.all():
        if site.name == COORDINATOR:
            continue
        certificate = newest.pop((site.name, True), None)
        expires_at = None if certificate is None else certificate.expires_at
        if site.disabled_at is not None:
            yield MemberState(
                site.name, Access.SITE, "disabled", site.disabled_reason or "", expires_at
            )
        elif certificate is None:
            yield MemberState(site.name, Access.SITE, "no certificate", "", None)
        else:
            yield _state(certificate, now)
    yield from (_state(each, now) for each in newest.values())
    for invitation in registry.invitations.all():
        if invitation.used_at is None and now <= invitation.expires_at:
            yield MemberState(
                invitation.name, invitation.access, "invited", "", invitation.expires_at
            )


def _state(certificate: Certificate, now: float) -> MemberState:
    state = "active" if now <= certificate.expires_at else "expired"
    if certificate.revoked_at is not None:
        state = "revoked"
    return MemberState(
        certificate.name,
        certificate.access,
        state,
        certificate.reason or "",
        certificate.expires_at,
    )
