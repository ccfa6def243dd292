"""Alembic's environment: migrations run on the connection that `migrate` hands over."""

from __future__ import annotations

from alembic import context

from rootstock.coordinator.registry.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    # SQLite alters a table by copying it.
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
