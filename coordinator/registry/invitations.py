"""Invitations: one-time tokens, each for one name, of which only a hash is stored."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from rootstock.common.errors import ConflictError, IdentityError
from rootstock.coordinator.registry.certificates import revoke_all, same_kind
from rootstock.coordinator.registry.database import Subject
from rootstock.coordinator.registry.records import Access, Invitation, record
from rootstock.coordinator.registry.sites import bind_key
from rootstock.coordinator.registry.tables import CertificateRow, InvitationRow, SiteRow

MAX_FAILURES = 5
"""Wrong secrets after which an invitation is void, whoever tried them."""

SECRET_BYTES = 16
"""128 bits from the system's generator: guessing is hopeless, so a fast hash will do."""

_ID_BYTES = 6
_TOKEN = re.compile(rf"([0-9a-f]{{{2 * _ID_BYTES}}})\.([0-9a-f]{{{2 * SECRET_BYTES}}})")


class Invitations(Subject):
    """The invitations table."""

    def create(self, name: str, access: Access, seconds: float, *, again: bool = False) -> str:
        """Invite one member under a name, for so many seconds; return the token, ID.SECRET.

        An older invitation of that name which was not used is void from then on. ConflictError if
        a member of that name has joined, unless it is to join `again`.
        """
        token_id, secret = secrets.token_hex(_ID_BYTES), secrets.token_hex(SECRET_BYTES)
        now = self._clock()
        with self._database.write() as session:
            if not again and _has_joined(session, name, access):
                raise ConflictError(
                    f"'{name}' has joined already; choose another name, or, if it lost its key or "
                    "moves to another machine, invite it with --again, which revokes what it has"
                )
            session.execute(
                delete(InvitationRow).where(
                    InvitationRow.name == name,
                    same_kind(InvitationRow, access),
                    InvitationRow.used_at.is_(None),
                )
            )
            session.add(
                InvitationRow(
                    id=token_id,
                    name=name,
                    access=access,
                    secret_hash=_hash(secret),
                    again=again,
                    created_at=now,
                    expires_at=now + seconds,
                    failures=0,
                    used_at=None,
                )
            )
        return f"{token_id}.{secret}"

    def redeem(self, token: str, public_key: bytes) -> Invitation:
        """Use up an invitation, and bind a site's name to its signing key (32 raw bytes).

        Of calls at the same time one succeeds. IdentityError if there is no such invitation, it was
        used or is too old; ConflictError if the name belongs to another key, and the invitation is
        not one to join again: then it stays good.
        """
        given = _TOKEN.fullmatch(token)
        if given is None:
            raise _unknown()
        now = self._clock()
        with self._database.write() as session:
            row = session.get(InvitationRow, given[1], with_for_update=True)
            right = hmac.compare_digest(
                _hash(given[2]), row.secret_hash if row is not None else bytes(32)
            )
            if row is not None and not right:
                row.failures += 1  # committed: the error is raised after the transaction
            if row is not None and right and row.failures < MAX_FAILURES:
                _require_open(row, now)
                row.used_at = now
                if row.access is Access.SITE:
                    bind_key(session, row.name, public_key, now, again=row.again)
                if row.again:
                    revoke_all(session, row.name, row.access, now, "joined again")
                return record(Invitation, row)
        raise _unknown()

    def all(self) -> list[Invitation]:
        """Return every invitation, oldest first."""
        order = (InvitationRow.created_at, InvitationRow.id)
        return self._database.fetch(Invitation, select(InvitationRow).order_by(*order))


def _require_open(row: InvitationRow, now: float) -> None:
    """Refuse an invitation whose secret the caller knows, with the reason."""
    again = f"ask for another one (rootstock coordinator invite {row.name} --again)"
    if row.used_at is not None:
        raise IdentityError(f"invitation {row.id} of '{row.name}' was used; {again}")
    if now > row.expires_at:
        raise IdentityError(
            f"invitation {row.id} of '{row.name}' expired {now - row.expires_at:.0f} s ago; {again}"
        )


def _has_joined(session: Session, name: str, access: Access) -> bool:
    if access is Access.SITE:
        return session.get(SiteRow, name) is not None
    query = select(CertificateRow.serial).where(
        CertificateRow.name == name, same_kind(CertificateRow, access)
    )
    return session.scalar(query.limit(1)) is not None


def _unknown() -> IdentityError:
    return IdentityError(
        "the token is wrong, or no longer good: an invitation ends with its time, with a newer one "
        f"for the same name, and with {MAX_FAILURES} wrong secrets; copy the whole line that "
        "`rootstock coordinator invite` printed, or ask for another one"
    )


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
