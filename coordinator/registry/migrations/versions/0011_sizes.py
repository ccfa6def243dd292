"""How many bytes each upload brings, so that what is stored can be bounded."""

import sqlalchemy as sa
from alembic import op

from rootstock.common.weights.manifest import parse_manifest

revision = "0011"
down_revision = "0008"
branch_labels = None
depends_on = None

UPLOADS = sa.table(
    "uploads",
    sa.column("id", sa.String()),
    sa.column("manifest", sa.LargeBinary()),
    sa.column("size", sa.BigInteger()),
)


def upgrade() -> None:
    op.add_column("uploads", sa.Column("size", sa.BigInteger(), nullable=False, server_default="0"))
    connection = op.get_bind()
    for upload_id, manifest in connection.execute(sa.select(UPLOADS.c.id, UPLOADS.c.manifest)):
        blobs = {blob.digest: blob.size for blob in parse_manifest(manifest).blobs()}
        connection.execute(
            UPLOADS.update().where(UPLOADS.c.id == upload_id).values(size=sum(blobs.values()))
        )


def downgrade() -> None:
    op.drop_column("uploads", "size")
