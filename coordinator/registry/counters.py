"""Numbers that grow by one with each transaction that takes one."""

from __future__ import annotations

from sqlalchemy import update
from sqlalchemy.orm import Session

from rootstock.coordinator.registry.tables import CounterRow


def take(session: Session, name: str) -> int:
    """Increment a counter and hold it until the transaction ends."""
    taken = session.execute(
        update(CounterRow)
        .where(CounterRow.name == name)
        .values(value=CounterRow.value + 1)
        .returning(CounterRow.value)
    ).scalar_one()
    return int(taken)
