"""The first schema: sites, uploads, submissions, merges, evaluations, net versions, events."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "counters",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "sites",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("public_key", sa.LargeBinary(), nullable=False),
        sa.Column("joined_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "events",
        sa.Column("cursor", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("site", sa.String(), nullable=True),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["site"],
            ["sites.name"],
        ),
        sa.PrimaryKeyConstraint("cursor"),
    )
    op.create_index("events_by_site", "events", ["site", "cursor"], unique=False)
    op.create_table(
        "uploads",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("site", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("manifest_digest", sa.String(), nullable=False),
        sa.Column("manifest", sa.LargeBinary(), nullable=False),
        sa.Column("signature", sa.LargeBinary(), nullable=False),
        sa.Column("evaluation_id", sa.String(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("touched_at", sa.Double(), nullable=False),
        sa.Column("received_at", sa.String(), nullable=True),
        sa.Column("receipt_signature", sa.LargeBinary(), nullable=True),
        sa.ForeignKeyConstraint(
            ["site"],
            ["sites.name"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("manifest_digest"),
    )
    op.create_index("uploads_by_site", "uploads", ["site"], unique=False)
    op.create_table(
        "submissions",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("category", sa.String(), nullable=False),
        sa.Column(
            "state",
            sa.Enum(
                "receiving",
                "received",
                "admitted",
                "refused",
                name="submissionstate",
                native_enum=False,
                length=16,
            ),
            nullable=False,
        ),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["id"],
            ["uploads.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("submissions_by_state", "submissions", ["state"], unique=False)
    op.create_table(
        "upload_blobs",
        sa.Column("upload_id", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("private", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["upload_id"],
            ["uploads.id"],
        ),
        sa.PrimaryKeyConstraint("upload_id", "digest"),
    )
    op.create_index("upload_blobs_by_digest", "upload_blobs", ["digest"], unique=False)
    op.create_table(
        "merges",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("submission_id", sa.String(), nullable=False),
        sa.Column("category", sa.String(), nullable=False),
        sa.Column("task", sa.String(), nullable=False),
        sa.Column("operation", sa.String(), nullable=False),
        sa.Column(
            "state",
            sa.Enum(
                "queued",
                "distilling",
                "evaluating",
                "merged",
                "rejected",
                "failed",
                "rolled_back",
                name="mergestate",
                native_enum=False,
                length=16,
            ),
            nullable=False,
        ),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("numbers", sa.JSON(), nullable=False),
        sa.Column("job_result", sa.JSON(), nullable=True),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("steps", sa.BigInteger(), nullable=False),
        sa.Column("parent_version", sa.Integer(), nullable=True),
        sa.Column("net_version", sa.Integer(), nullable=True),
        sa.Column("candidate", sa.String(), nullable=True),
        sa.Column("mlflow_run_id", sa.String(), nullable=True),
        sa.Column("logged", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=True),
        sa.Column("finished_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(
            ["submission_id"],
            ["submissions.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint(
            "submission_id", "category", "task", "operation", name="one_merge_each"
        ),
    )
    op.create_index("merges_by_state", "merges", ["state"], unique=False)
    op.create_table(
        "evaluations",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("merge_id", sa.String(), nullable=False),
        sa.Column("site", sa.String(), nullable=False),
        sa.Column("request", sa.LargeBinary(), nullable=False),
        sa.Column("report", sa.LargeBinary(), nullable=True),
        sa.Column("requested_at", sa.Double(), nullable=False),
        sa.Column("reported_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(
            ["merge_id"],
            ["merges.id"],
        ),
        sa.ForeignKeyConstraint(
            ["site"],
            ["sites.name"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("merge_id"),
    )
    op.create_table(
        "net_versions",
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("tree", sa.String(), nullable=False),
        sa.Column("parent", sa.Integer(), nullable=True),
        sa.Column("merge_id", sa.String(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["merge_id"],
            ["merges.id"],
        ),
        sa.ForeignKeyConstraint(
            ["parent"],
            ["net_versions.number"],
        ),
        sa.PrimaryKeyConstraint("number"),
        sa.UniqueConstraint("digest"),
        sa.UniqueConstraint("merge_id"),
    )
    op.bulk_insert(
        sa.table("counters", sa.column("name", sa.String), sa.column("value", sa.BigInteger)),
        [
            {"name": name, "value": 0}
            for name in ("submission", "refinement", "merge", "version", "event")
        ],
    )


def downgrade() -> None:
    op.drop_table("net_versions")
    op.drop_table("evaluations")
    op.drop_index("merges_by_state", table_name="merges")
    op.drop_table("merges")
    op.drop_index("upload_blobs_by_digest", table_name="upload_blobs")
    op.drop_table("upload_blobs")
    op.drop_index("submissions_by_state", table_name="submissions")
    op.drop_table("submissions")
    op.drop_index("uploads_by_site", table_name="uploads")
    op.drop_table("uploads")
    op.drop_index("events_by_site", table_name="events")
    op.drop_table("events")
    op.drop_table("sites")
    op.drop_table("counters")
