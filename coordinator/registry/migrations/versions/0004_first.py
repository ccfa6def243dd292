"""The schema of 0.1.0, from which databases are migrated; older ones were never released."""

from collections.abc import Callable

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = None
branch_labels = None
depends_on = None


def text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.String(), nullable=False)


def word(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.String(16), nullable=False)


def optional_text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.String())


def data(name: str) -> sa.Column[bytes]:
    return sa.Column(name, sa.LargeBinary(), nullable=False)


def seconds(name: str) -> sa.Column[float]:
    return sa.Column(name, sa.Double(), nullable=False)


def optional_seconds(name: str) -> sa.Column[float]:
    return sa.Column(name, sa.Double())


def count(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), nullable=False)


def key(*columns: sa.Column[str] | sa.Column[int]) -> list[sa.schema.SchemaItem]:
    return [*columns, sa.PrimaryKeyConstraint(*(column.name for column in columns))]


def refers(column: str, other: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint([column], [other])


TABLES: dict[str, Callable[[], list[sa.schema.SchemaItem]]] = {
    "counters": lambda: [*key(text("name")), count("value")],
    "sites": lambda: [*key(text("name")), data("public_key"), seconds("joined_at")],
    "events": lambda: [
        *key(sa.Column("cursor", sa.BigInteger(), autoincrement=False, nullable=False)),
        optional_text("site"),
        text("kind"),
        data("payload"),
        seconds("created_at"),
        refers("site", "sites.name"),
    ],
    "uploads": lambda: [
        *key(text("id")),
        text("site"),
        text("kind"),
        text("manifest_digest"),
        data("manifest"),
        data("signature"),
        optional_text("evaluation_id"),
        seconds("created_at"),
        seconds("touched_at"),
        optional_text("received_at"),
        sa.Column("receipt_signature", sa.LargeBinary()),
        refers("site", "sites.name"),
        sa.UniqueConstraint("manifest_digest"),
    ],
    "upload_blobs": lambda: [
        *key(text("upload_id"), text("digest")),
        sa.Column("private", sa.Boolean(), nullable=False),
        sa.Column("held", sa.JSON()),
        sa.Column("held_bytes", sa.BigInteger(), nullable=False, server_default="0"),
        refers("upload_id", "uploads.id"),
    ],
    "submissions": lambda: [
        *key(text("id")),
        text("category"),
        word("state"),
        text("reason"),
        seconds("created_at"),
        seconds("updated_at"),
        refers("id", "uploads.id"),
    ],
    "merges": lambda: [
        *key(text("id")),
        text("submission_id"),
        text("category"),
        text("task"),
        text("operation"),
        word("state"),
        text("reason"),
        sa.Column("numbers", sa.JSON(), nullable=False),
        sa.Column("job_result", sa.JSON()),
        count("step"),
        count("steps"),
        sa.Column("parent_version", sa.Integer()),
        sa.Column("net_version", sa.Integer()),
        optional_text("candidate"),
        sa.Column("released", sa.Boolean(), nullable=False, server_default=sa.true()),
        optional_text("decision"),
        optional_text("decision_reason"),
        optional_text("mlflow_run_id"),
        sa.Column("logged", sa.Boolean(), nullable=False),
        seconds("created_at"),
        seconds("updated_at"),
        optional_seconds("started_at"),
        optional_seconds("finished_at"),
        refers("submission_id", "submissions.id"),
        sa.UniqueConstraint(
            "submission_id", "category", "task", "operation", name="one_merge_each"
        ),
    ],
    "evaluations": lambda: [
        *key(text("id")),
        text("merge_id"),
        text("site"),
        data("request"),
        sa.Column("report", sa.LargeBinary()),
        seconds("requested_at"),
        optional_seconds("reported_at"),
        refers("merge_id", "merges.id"),
        refers("site", "sites.name"),
    ],
    "net_versions": lambda: [
        *key(sa.Column("number", sa.Integer(), autoincrement=False, nullable=False)),
        text("digest"),
        text("tree"),
        sa.Column("parent", sa.Integer()),
        text("merge_id"),
        seconds("created_at"),
        optional_seconds("rolled_back_at"),
        refers("parent", "net_versions.number"),
        refers("merge_id", "merges.id"),
        sa.UniqueConstraint("digest"),
        sa.UniqueConstraint("merge_id"),
    ],
}
"""Each after those that it refers to."""

INDEXES = {
    "events_by_site": ("events", ["site", "cursor"]),
    "uploads_by_site": ("uploads", ["site"]),
    "upload_blobs_by_digest": ("upload_blobs", ["digest"]),
    "submissions_by_state": ("submissions", ["state"]),
    "merges_by_state": ("merges", ["state"]),
    "evaluations_by_merge": ("evaluations", ["merge_id"]),
}

COUNTERS = ("submission", "refinement", "merge", "version", "event")


def upgrade() -> None:
    for name, items in TABLES.items():
        op.create_table(name, *items())
    for name, (table, columns) in INDEXES.items():
        op.create_index(name, table, columns)
    counters = sa.table("counters", sa.column("name", sa.String), sa.column("value", sa.BigInteger))
    op.bulk_insert(counters, [{"name": name, "value": 0} for name in COUNTERS])


def downgrade() -> None:
    for name in reversed(TABLES):
        op.drop_table(name)
