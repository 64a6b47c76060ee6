"""Projects and domains say since when their tokens are good"""

import sqlalchemy as sa
from alembic import op

from kilonova.store.tables.base import Timestamp

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in ("domains", "projects"):
        op.add_column(table, sa.Column("tokens_since", Timestamp, nullable=True))


def downgrade() -> None:
    for table in ("domains", "projects"):
        op.drop_column(table, "tokens_since")
