"""What a lab may read is an allow-list: uploads no longer say which of their blobs are private."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_column("upload_blobs", "private")


def downgrade() -> None:
    # The schema before lets everybody read what is not private.
    op.add_column(
        "upload_blobs", sa.Column("private", sa.Boolean(), nullable=False, server_default=sa.true())
    )
