"""What was answered to requests that carry an ``Idempotency-Key``."""

import sqlalchemy as sa

from kilonova.store.tables.base import CELL, Timestamp

answers = sa.Table(
    "answers",
    CELL,
    sa.Column("key", sa.String(80), primary_key=True, comment="hash of who asked, what, and the key; never the key"),
    sa.Column("fingerprint", sa.String(64), nullable=False, comment="hash of the body"),
    sa.Column("status", sa.Integer, nullable=True, comment="empty: carried out, the answer is not written yet"),
    sa.Column("answer", sa.Text, nullable=True, comment="encrypted with the key that only the client has"),
    sa.Column("created_at", Timestamp, nullable=False),
    sa.Index("answers_created_at", "created_at"),
)
