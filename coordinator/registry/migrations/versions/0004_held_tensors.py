"""Tensors of a blob that the coordinator holds already need not travel."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("upload_blobs", sa.Column("held", sa.JSON(), nullable=True))
    op.add_column(
        "upload_blobs",
        sa.Column("held_bytes", sa.BigInteger(), nullable=False, server_default="0"),
    )


def downgrade() -> None:
    # Where tensors were left out, the schema before asks for the blob as a whole.
    op.drop_column("upload_blobs", "held_bytes")
    op.drop_column("upload_blobs", "held")
