"""Server groups, and the places that their rules give"""

import sqlalchemy as sa
from alembic import op

from kilonova.store.tables.base import Timestamp

revision = "0005"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "server_groups",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("project_id", sa.String(64), nullable=False),
        sa.Column("user_id", sa.String(64), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("policy", sa.String(32), nullable=False),
        sa.Column("max_server_per_host", sa.Integer, nullable=False),
        sa.Column("created_at", Timestamp(), nullable=False),
    )
    op.create_index("server_groups_project", "server_groups", ["project_id", "created_at", "id"])
    op.create_table(
        "server_group_members",
        sa.Column("server_id", sa.String(36), primary_key=True),
        sa.Column("group_id", sa.String(36), nullable=False),
    )
    op.create_index("server_group_members_group", "server_group_members", ["group_id"])
    op.create_table(
        "group_slots",
        sa.Column("group_id", sa.String(36), primary_key=True),
        sa.Column("slot", sa.String(32), primary_key=True, comment="a host's id, or 'all' where one host takes all"),
        sa.Column("host_id", sa.BigInteger, nullable=False, comment="where those in this slot are"),
        sa.Column("members", sa.Integer, nullable=False),
    )
    op.create_table(
        "group_claims",
        sa.Column("server_id", sa.String(36), primary_key=True),
        sa.Column("group_id", sa.String(36), nullable=False),
        sa.Column("slot", sa.String(32), nullable=False),
    )


def downgrade() -> None:
    for table in ("group_claims", "group_slots", "server_group_members", "server_groups"):
        op.drop_table(table)
