"""The outbox and its relays, and the deliveries that have failed."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "outbox_relays",
        sa.Column("relay_id", sa.String(32), primary_key=True),
        sa.Column("beat", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "outbox",
        sa.Column("entry_id", sa.Uuid, primary_key=True),
        sa.Column("event_id", sa.Uuid, nullable=False, index=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("payload", sa.Text, nullable=False),
        sa.Column("pending", sa.Text, nullable=False),
        sa.Column("claimed_by", sa.String(32), index=True),
        sa.Column("sent", sa.Boolean, nullable=False),
        sa.Column("appended_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_table(
        "failed_deliveries",
        sa.Column("failure_id", sa.Integer, primary_key=True),
        sa.Column("name", sa.Text),
        sa.Column("event_id", sa.Text),
        sa.Column("handler", sa.Text),
        sa.Column("payload", sa.Text, nullable=False),
        sa.Column("error_type", sa.Text, nullable=False),
        sa.Column("error", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("first_failed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_failed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.UniqueConstraint("event_id", "handler"),
    )


def downgrade() -> None:
    op.drop_table("failed_deliveries")
    op.drop_table("outbox")
    op.drop_table("outbox_relays")
