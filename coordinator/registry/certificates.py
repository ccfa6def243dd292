"""Client certificates that were issued, and which of them are revoked."""

from __future__ import annotations

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from rootstock.common.errors import NotFoundError
from rootstock.coordinator.registry.database import Subject
from rootstock.coordinator.registry.records import Access, Certificate
from rootstock.coordinator.registry.tables import CertificateRow, InvitationRow


class Certificates(Subject):
    """The certificates table."""

    def add(self, serial: str, name: str, access: Access, expires_at: float) -> None:
        """Record a certificate before it is handed out."""
        with self._database.write() as session:
            session.add(
                CertificateRow(
                    serial=serial,
                    name=name,
                    access=access,
                    issued_at=self._clock(),
                    expires_at=expires_at,
                    revoked_at=None,
                    reason=None,
                )
            )
            session.info["members"] = True

    def revoke(self, name: str, access: Access, reason: str) -> int:
        """Revoke every certificate of a member; return how many were good until now.

        NotFoundError if it never had one.
        """
        with self._database.write() as session:
            known = select(CertificateRow.serial).where(
                CertificateRow.name == name, same_kind(CertificateRow, access)
            )
            if session.scalar(known.limit(1)) is None:
                kind = "site" if access is Access.SITE else "operator"
                raise NotFoundError(
                    f"{kind} '{name}' has no certificate; `rootstock coordinator sites` lists who "
                    "has one"
                )
            return revoke_all(session, name, access, self._clock(), reason)

    def current(self) -> list[Certificate]:
        """Return every certificate that has not expired, revoked ones included."""
        query = select(CertificateRow).where(CertificateRow.expires_at > self._clock())
        return self._database.fetch(Certificate, query)

    def all(self) -> list[Certificate]:
        """Return every certificate, oldest first."""
        order = (CertificateRow.issued_at, CertificateRow.serial)
        return self._database.fetch(Certificate, select(CertificateRow).order_by(*order))


def revoke_all(session: Session, name: str, access: Access, now: float, reason: str) -> int:
    """Revoke every certificate of a member within the caller's transaction."""
    # Row by row: the log records what a session has changed.
    valid = select(CertificateRow).where(
        CertificateRow.name == name,
        same_kind(CertificateRow, access),
        CertificateRow.revoked_at.is_(None),
        CertificateRow.expires_at > now,
    )
    revoked = session.scalars(valid).all()
    for row in revoked:
        row.revoked_at, row.reason = now, reason
    session.info["members"] = True
    return len(revoked)


def same_kind(
    table: type[CertificateRow] | type[InvitationRow], access: Access
) -> ColumnElement[bool]:
    """Return the condition for rows of sites, or of operators: a name may be one of each."""
    return table.access == access if access is Access.SITE else table.access != Access.SITE
