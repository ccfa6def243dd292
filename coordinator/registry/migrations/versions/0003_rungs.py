"""A merge may ask its lab twice: what needs no learning first, then what was learned."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

NAMES = {"uq": "uq_%(table_name)s_%(column_0_name)s"}
"""The first schema left the constraint without a name; SQLite's copy gives it one to drop."""


def upgrade() -> None:
    name = "uq_evaluations_merge_id"
    if op.get_bind().dialect.name == "postgresql":
        name = "evaluations_merge_id_key"
    with op.batch_alter_table("evaluations", naming_convention=NAMES) as table:
        table.drop_constraint(name, type_="unique")
    op.create_index("evaluations_by_merge", "evaluations", ["merge_id"])


def downgrade() -> None:
    op.drop_index("evaluations_by_merge", "evaluations")
    # The second question of a merge has no place in a schema of one.
    op.execute(sa.text("DELETE FROM evaluations WHERE id LIKE 'evl-%-2'"))
    with op.batch_alter_table("evaluations") as table:
        table.create_unique_constraint("uq_evaluations_merge_id", ["merge_id"])
