"""Security groups, their rules, and the ports that are in them."""

import sqlalchemy as sa

from kilonova.store.tables.base import GLOBAL, Timestamp, Uuid

security_groups = sa.Table(
    "security_groups",
    GLOBAL,
    sa.Column("id", Uuid, primary_key=True, comment="that of a default group follows from the project's"),
    sa.Column("project_id", sa.String(64), nullable=False),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("description", sa.String(255), nullable=False),
    sa.Column("created_at", Timestamp, nullable=False),
    sa.Column("updated_at", Timestamp, nullable=False),
    sa.Index("security_groups_project", "project_id"),
)

security_group_rules = sa.Table(
    "security_group_rules",
    GLOBAL,
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
    sa.Index("security_group_rules_group", "group_id"),
    sa.Index("security_group_rules_remote", "remote_group_id"),
)

port_security_groups = sa.Table(
    "port_security_groups",
    GLOBAL,
    sa.Column("port_id", Uuid, primary_key=True),
    sa.Column("group_id", Uuid, primary_key=True),
    sa.Index("port_security_groups_group", "group_id"),
)
