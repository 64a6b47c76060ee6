"""Groups of users, the roles that they have, and failed logins"""

import sqlalchemy as sa
from alembic import op

from kilonova.store.tables.base import Timestamp

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "identity_groups",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("domain_id", sa.String(64), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.UniqueConstraint("domain_id", "name", name="identity_groups_name"),
    )
    op.create_table(
        "identity_group_members",
        sa.Column("group_id", sa.String(64), primary_key=True),
        sa.Column("user_id", sa.String(64), primary_key=True),
    )
    op.create_index("identity_group_members_user", "identity_group_members", ["user_id"])
    op.create_table(
        "group_role_assignments",
        sa.Column("group_id", sa.String(64), primary_key=True),
        sa.Column("scope", sa.String(16), primary_key=True),
        sa.Column("scope_id", sa.String(64), primary_key=True),
        sa.Column("role_id", sa.String(64), primary_key=True),
    )
    op.create_table(
        "failed_logins",
        sa.Column("key", sa.String(64), primary_key=True, comment="hash of who was tried from where; never the name"),
        sa.Column("count", sa.Integer, nullable=False),
        sa.Column("since", Timestamp, nullable=False, comment="of the first of them"),
    )
    op.create_index("failed_logins_since", "failed_logins", ["since"])


def downgrade() -> None:
    for table in ("failed_logins", "group_role_assignments", "identity_group_members", "identity_groups"):
        op.drop_table(table)
