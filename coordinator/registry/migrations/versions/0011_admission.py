"""Sizes of uploads; merges that are void since what they stood on was rolled back."""

import sqlalchemy as sa
from alembic import op

from rootstock.common.weights.manifest import parse_manifest

revision = "0011"
down_revision = "0009"
branch_labels = None
depends_on = None

UPLOADS = sa.table(
    "uploads",
    sa.column("id", sa.String()),
    sa.column("manifest", sa.LargeBinary()),
    sa.column("size", sa.BigInteger()),
)
KEY = ["submission_id", "category", "task", "operation"]


def upgrade() -> None:
    op.add_column("uploads", sa.Column("size", sa.BigInteger(), nullable=False, server_default="0"))
    connection = op.get_bind()
    uploads = connection.execute(sa.select(UPLOADS.c.id, UPLOADS.c.manifest)).all()
    for upload_id, manifest in uploads:
        blobs = {blob.digest: blob.size for blob in parse_manifest(manifest).blobs()}
        connection.execute(
            UPLOADS.update().where(UPLOADS.c.id == upload_id).values(size=sum(blobs.values()))
        )
    op.add_column("merges", sa.Column("attempt", sa.Integer(), nullable=False, server_default="1"))
    op.add_column(
        "merges", sa.Column("void", sa.Boolean(), nullable=False, server_default=sa.false())
    )
    one_merge_each([*KEY, "attempt"])


def downgrade() -> None:
    one_merge_each(KEY)
    op.drop_column("merges", "void")
    op.drop_column("merges", "attempt")
    op.drop_column("uploads", "size")


def one_merge_each(key: list[str]) -> None:
    """Change what a merge is the only one of."""
    with op.batch_alter_table("merges") as batch:
        batch.drop_constraint("one_merge_each", type_="unique")
        batch.create_unique_constraint("one_merge_each", key)
