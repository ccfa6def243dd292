"""Sites: each name is bound to the first public key that joined with it."""

from __future__ import annotations

from sqlalchemy import select

from rootstock.common.errors import ConflictError
from rootstock.coordinator.registry.database import Subject
from rootstock.coordinator.registry.records import Site
from rootstock.coordinator.registry.tables import SiteRow


class Sites(Subject):
    """The sites table."""

    def join(self, site: str, public_key: bytes) -> None:
        """Bind a name to a key; the same key may join again, another is a ConflictError."""
        with self._database.write() as session:
            row = session.get(SiteRow, site)
            if row is None:
                session.add(SiteRow(name=site, public_key=public_key, joined_at=self._clock()))
            elif row.public_key != public_key:
                raise ConflictError(
                    f"the name '{site}' belongs to a lab with another key; choose another name, "
                    "or put back the key that this lab joined with"
                )

    def key_of(self, site: str) -> bytes | None:
        """Return the public key that a name is bound to, or None."""
        with self._database.read() as session:
            row = session.get(SiteRow, site)
            return None if row is None else row.public_key

    def all(self) -> list[Site]:
        """Return every site, by name."""
        return self._database.fetch(Site, select(SiteRow).order_by(SiteRow.name))
