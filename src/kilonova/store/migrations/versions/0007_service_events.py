"""When services came, went, and were switched off"""

import sqlalchemy as sa
from alembic import op

from kilonova.store.tables.base import Serial, Timestamp

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "service_events",
        sa.Column("id", Serial, primary_key=True),
        sa.Column("service", sa.String(64), nullable=False),
        sa.Column("host", sa.String(255), nullable=False),
        sa.Column("event", sa.String(32), nullable=False, comment="a kilonova.model.service.ServiceChange"),
        sa.Column("cause", sa.String(255), nullable=False),
        sa.Column("at", Timestamp, nullable=False),
    )
    op.create_index("service_events_at", "service_events", ["at"])
    op.create_index("service_events_name", "service_events", ["host", "service"])


def downgrade() -> None:
    op.drop_table("service_events")
