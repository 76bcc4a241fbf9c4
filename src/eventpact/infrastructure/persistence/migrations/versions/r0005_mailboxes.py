"""How many mails each mailbox was sent, whichever spelling of its address was used."""

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


def downgrade() -> None:
    op.drop_table("mailboxes")
