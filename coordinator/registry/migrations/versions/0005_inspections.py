"""What running a merge's join on synthetic images came to is kept with the merge."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("merges", sa.Column("inspection", sa.JSON(), nullable=True))


def downgrade() -> None:
    op.drop_column("merges", "inspection")
