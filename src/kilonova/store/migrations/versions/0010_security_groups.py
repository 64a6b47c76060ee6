"""Security groups; every port that there is comes into its project's default one"""

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

from kilonova.model.security_group import default_id, default_rules
from kilonova.store.tables.base import Timestamp, Uuid

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    groups = op.create_table(
        "security_groups",
        sa.Column("id", Uuid, primary_key=True, comment="that of a default group follows from the project's"),
        sa.Column("project_id", sa.String(64), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("description", sa.String(255), nullable=False),
        sa.Column("created_at", Timestamp, nullable=False),
        sa.Column("updated_at", Timestamp, nullable=False),
    )
    op.create_index("security_groups_project", "security_groups", ["project_id"])
    rules = op.create_table(
        "security_group_rules",
        sa.Column("id", Uuid, primary_key=True),
        sa.Column("group_id", Uuid, nullable=False),
        sa.Column("project_id", sa.String(64), nullable=False),
        sa.Column("direction", sa.String(8), nullable=False),
        sa.Column("ethertype", sa.String(8), nullable=False),
        sa.Column("protocol", sa.String(16), nullable=True),
        sa.Column("port_min", sa.Integer, nullable=True),
        sa.Column("port_max", sa.Integer, nullable=True),
        sa.Column("remote_cidr", sa.String(64), nullable=True),
        sa.Column("remote_group_id", Uuid, nullable=True),
        sa.Column("description", sa.String(255), nullable=False),
        sa.Column("created_at", Timestamp, nullable=False),
    )
    op.create_index("security_group_rules_group", "security_group_rules", ["group_id"])
    op.create_index("security_group_rules_remote", "security_group_rules", ["remote_group_id"])
    members = op.create_table(
        "port_security_groups",
        sa.Column("port_id", Uuid, primary_key=True),
        sa.Column("group_id", Uuid, primary_key=True),
    )
    op.create_index("port_security_groups_group", "port_security_groups", ["group_id"])
    _fill(groups, rules, members)


def _fill(groups: sa.Table, rules: sa.Table, members: sa.Table) -> None:
    ports = sa.table("ports", sa.column("id", Uuid), sa.column("project_id", sa.String))
    found = op.get_bind().execute(sa.select(ports.c.id, ports.c.project_id)).all()
    now = datetime.now(UTC)
    for project in sorted({row.project_id for row in found}):
        group = default_id(project)
        op.bulk_insert(
            groups,
            [
                {
                    "id": group,
                    "project_id": project,
                    "name": "default",
                    "description": "Default security group",
                    "created_at": now,
                    "updated_at": now,
                }
            ],
        )
        op.bulk_insert(
            rules, [{**rule, "description": "", "created_at": now} for rule in default_rules(group, project)]
        )
    op.bulk_insert(members, [{"port_id": row.id, "group_id": default_id(row.project_id)} for row in found])


def downgrade() -> None:
    op.drop_table("port_security_groups")
    op.drop_table("security_group_rules")
    op.drop_table("security_groups")
