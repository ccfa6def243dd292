"""Certificates and invitations; sites may be disabled, and join again with another key."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.String(), nullable=False)


def word(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.String(16), nullable=False)


def seconds(name: str) -> sa.Column[float]:
    return sa.Column(name, sa.Double(), nullable=False)


def optional_seconds(name: str) -> sa.Column[float]:
    return sa.Column(name, sa.Double())


def data(name: str) -> sa.Column[bytes]:
    return sa.Column(name, sa.LargeBinary(), nullable=False)


def upgrade() -> None:
    op.add_column("sites", optional_seconds("disabled_at"))
    op.add_column("sites", sa.Column("disabled_reason", sa.String()))
    op.create_table(
        "former_keys",
        text("site"),
        data("public_key"),
        seconds("replaced_at"),
        sa.PrimaryKeyConstraint("site", "public_key"),
        sa.ForeignKeyConstraint(["site"], ["sites.name"]),
    )
    op.create_table(
        "invitations",
        text("id"),
        text("name"),
        word("access"),
        data("secret_hash"),
        sa.Column("again", sa.Boolean(), nullable=False),
        seconds("created_at"),
        seconds("expires_at"),
        sa.Column("failures", sa.Integer(), nullable=False),
        optional_seconds("used_at"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "certificates",
        text("serial"),
        text("name"),
        word("access"),
        seconds("issued_at"),
        seconds("expires_at"),
        optional_seconds("revoked_at"),
        sa.Column("reason", sa.String()),
        sa.PrimaryKeyConstraint("serial"),
    )
    op.create_index("certificates_by_name", "certificates", ["name"])


def downgrade() -> None:
    for table in ("certificates", "invitations", "former_keys"):
        op.drop_table(table)
    for column in ("disabled_reason", "disabled_at"):
        op.drop_column("sites", column)
