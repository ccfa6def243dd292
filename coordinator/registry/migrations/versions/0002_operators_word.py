"""What an operator says: of a merge (go, approve, reject), of a net version (rolled back)."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # The new state `reviewing` is a word in a column of words: nothing to alter.
    op.add_column("merges", sa.Column("decision", sa.String(), nullable=True))
    op.add_column("merges", sa.Column("decision_reason", sa.String(), nullable=True))
    op.add_column(
        "merges", sa.Column("released", sa.Boolean(), nullable=False, server_default=sa.true())
    )
    op.add_column("net_versions", sa.Column("rolled_back_at", sa.Double(), nullable=True))


def downgrade() -> None:
    op.drop_column("net_versions", "rolled_back_at")
    op.drop_column("merges", "released")
    op.drop_column("merges", "decision_reason")
    op.drop_column("merges", "decision")
