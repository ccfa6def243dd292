"""Members of a net: sites and operators who were invited, joined, and may be turned away."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

from rootstock.common.errors import ConflictError, IdentityError, IntegrityError
from rootstock.common.identity.certificates import Role, half_life, new_key, requested_key
from rootstock.common.identity.credentials import Credentials, read_credentials
from rootstock.common.identity.keys import verify
from rootstock.common.protocol import join_bytes
from rootstock.coordinator.identity.authority import NetAuthority
from rootstock.coordinator.paths import StatePaths
from rootstock.coordinator.registry import COORDINATOR, Access, Certificate, Registry

LOCAL_OPERATOR = "local"
"""The operator who works at the coordinator's machine: the one who can read its state folder."""


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

    def __init__(self, registry: Registry, authority: NetAuthority) -> None:
        self._registry = registry
        self._authority = authority

    def invite(self, name: str, access: Access, seconds: float, *, again: bool) -> str:
        """Invite a member under a name; return the token."""
        if name in (COORDINATOR, LOCAL_OPERATOR):
            raise ConflictError(f"the name '{name}' is the coordinator's own; choose another name")
        return self._registry.invitations.create(name, access, seconds, again=again)

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
                raise IdentityError(f"{error}") from error
        invitation = self._registry.invitations.redeem(request.token, request.signing_key)
        certificate = self.issue(invitation.name, invitation.access, key)
        return Joined(invitation.name, invitation.access, certificate)

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

    def local_operator(self, paths: StatePaths) -> Credentials:
        """Return the local operator's credentials, in the state folder; renewed at half-life."""
        path = paths.operator_credentials
        if path.exists():
            found = read_credentials(path)
            known = {each.serial for each in self._registry.certificates.all()}
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

    def revoke(self, name: str, access: Access, reason: str) -> int:
        """Revoke all certificates of a member; return how many were good until now."""
        return self._registry.certificates.revoke(name, access, reason)

    def all(self) -> list[MemberState]:
        """Return members and those who are invited, sites first."""
        now = self._authority.clock().timestamp()
        return sorted(
            _states(self._registry, now), key=lambda each: (each.access != Access.SITE, each.name)
        )


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
