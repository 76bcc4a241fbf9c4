"""Retries and resends of each delivery, the caller's context, the history of a failure, facts of the deployment."""

from uuid import uuid4

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("outbox", sa.Column("context", sa.Text))
    op.add_column("outbox", sa.Column("due_at", sa.DateTime(timezone=True)))
    op.add_column("outbox", sa.Column("sends", sa.Integer, nullable=False, server_default="0"))
    op.add_column("outbox", sa.Column("attempts", sa.Text))
    op.execute("UPDATE outbox SET sends = 1 WHERE sent")
    op.drop_column("outbox", "sent")
    op.add_column("failed_deliveries", sa.Column("retried_at", sa.DateTime(timezone=True)))
    op.add_column("failed_deliveries", sa.Column("fingerprint", sa.String(64)))
    op.create_index("ix_failed_deliveries_fingerprint", "failed_deliveries", ["fingerprint"], unique=True)
    deployment = op.create_table(
        "deployment", sa.Column("name", sa.String(100), primary_key=True), sa.Column("value", sa.Text, nullable=False)
    )
    op.bulk_insert(deployment, [{"name": "database", "value": str(uuid4())}])


def downgrade() -> None:
    op.drop_table("deployment")
    op.drop_index("ix_failed_deliveries_fingerprint", "failed_deliveries")
    op.drop_column("failed_deliveries", "fingerprint")
    op.drop_column("failed_deliveries", "retried_at")
    op.add_column("outbox", sa.Column("sent", sa.Boolean, nullable=False, server_default=sa.false()))
    for name in ("attempts", "sends", "due_at", "context"):
        op.drop_column("outbox", name)
