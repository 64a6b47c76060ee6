"""Answers to requests that carry an Idempotency-Key"""

import sqlalchemy as sa
from alembic import op

from kilonova.store.tables.base import Timestamp

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "answers",
        sa.Column(
            "key", sa.String(80), primary_key=True, comment="hash of who asked, what, and the key; never the key"
        ),
        sa.Column("fingerprint", sa.String(64), nullable=False, comment="hash of the body"),
        sa.Column("status", sa.Integer, nullable=True, comment="empty: carried out, the answer is not written yet"),
        sa.Column("answer", sa.Text, nullable=True, comment="encrypted with the key that only the client has"),
        sa.Column("created_at", Timestamp, nullable=False),
    )
    op.create_index("answers_created_at", "answers", ["created_at"])


def downgrade() -> None:
    op.drop_table("answers")
