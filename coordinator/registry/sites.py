"""Sites: each name is bound to one signing key, and may be disabled."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from rootstock.common.errors import ConflictError, NotFoundError
from rootstock.coordinator.registry.database import Subject
from rootstock.coordinator.registry.records import Site
from rootstock.coordinator.registry.tables import FormerKeyRow, SiteRow

COORDINATOR = "coordinator"
"""The name under which the coordinator signs what it learns; no lab may join with it."""


class Sites(Subject):
    """The sites table, and the signing keys that sites had before."""

    def join(self, site: str, public_key: bytes) -> None:
        """Bind a name to a key; the same key may join again, another is a ConflictError."""
        with self._database.write() as session:
            bind_key(session, site, public_key, self._clock(), again=False)

    def key_of(self, site: str) -> bytes | None:
        """Return the public key that a name is bound to, or None."""
        with self._database.read() as session:
            row = session.get(SiteRow, site)
            return None if row is None else row.public_key

    def keys_of(self, site: str) -> list[bytes]:
        """Return every public key that a site has signed with, the present one first."""
        former = (
            select(FormerKeyRow.public_key)
            .where(FormerKeyRow.site == site)
            .order_by(FormerKeyRow.replaced_at.desc())
        )
        with self._database.read() as session:
            row = session.get(SiteRow, site)
            return [] if row is None else [row.public_key, *session.scalars(former)]

    def disable(self, site: str, reason: str) -> None:
        """Refuse every call of a site from now on; NotFoundError if there is none."""
        with self._database.write() as session:
            row = _get(session, site)
            if row.disabled_at is None:
                row.disabled_at, row.disabled_reason = self._clock(), reason
                session.info["members"] = True

    def enable(self, site: str) -> None:
        """Let a site call again; NotFoundError if there is none."""
        with self._database.write() as session:
            row = _get(session, site)
            row.disabled_at = row.disabled_reason = None
            session.info["members"] = True

    def all(self) -> list[Site]:
        """Return every site, by name."""
        return self._database.fetch(Site, select(SiteRow).order_by(SiteRow.name))


def bind_key(session: Session, site: str, public_key: bytes, now: float, *, again: bool) -> None:
    """Bind a name to a signing key within the caller's transaction.

    Another key than the present one is a ConflictError, unless the site joins `again`: the former
    key is kept, since what it signed is still verified.
    """
    row = session.get(SiteRow, site)
    if row is None:
        session.add(SiteRow(name=site, public_key=public_key, joined_at=now))
        session.info["members"] = True
        return
    if row.public_key == public_key:
        return
    if not again:
        raise ConflictError(
            f"the name '{site}' belongs to a lab with another key; choose another name, "
            "or put back the key that this lab joined with"
        )
    # merge: it may take up a key that it had before.
    session.merge(FormerKeyRow(site=site, public_key=row.public_key, replaced_at=now))
    row.public_key = public_key


def _get(session: Session, site: str) -> SiteRow:
    row = session.get(SiteRow, site)
    if row is None:
        raise NotFoundError(
            f"there is no site '{site}'; `rootstock coordinator sites` lists those that joined"
        )
    return row
