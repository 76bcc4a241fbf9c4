"""Counters of the mails to each mailbox, and one row that the readiness check writes to."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table(
        "mailboxes",
        sa.Column("mailbox", sa.String(254), primary_key=True),
        sa.Column("mails", sa.Integer, nullable=False),
        sa.Column("mailed_at", sa.DateTime(timezone=True)),
        sa.Column("noticed_at", sa.DateTime(timezone=True)),
    )
    op.create_table(
        "readiness",
        sa.Column("check_id", sa.Integer, primary_key=True),
        sa.Column("checked_at", sa.DateTime(timezone=True), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("readiness")
    op.drop_table("mailboxes")
