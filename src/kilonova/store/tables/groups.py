"""Server groups, their members, and the places that their rules give."""

import sqlalchemy as sa

from kilonova.store.tables.base import CELL, GLOBAL, Timestamp, Uuid

server_groups = sa.Table(
    "server_groups",
    GLOBAL,
    sa.Column("id", Uuid, primary_key=True),
    sa.Column("project_id", sa.String(64), nullable=False),
    sa.Column("user_id", sa.String(64), nullable=False),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("policy", sa.String(32), nullable=False),
    sa.Column("max_server_per_host", sa.Integer, nullable=False, default=1),
    sa.Column("created_at", Timestamp, nullable=False),
    sa.Index("server_groups_project", "project_id", "created_at", "id"),
)

server_group_members = sa.Table(
    "server_group_members",
    GLOBAL,
    sa.Column("server_id", Uuid, primary_key=True),
    sa.Column("group_id", Uuid, nullable=False),
    sa.Index("server_group_members_group", "group_id"),
)

group_slots = sa.Table(
    "group_slots",
    CELL,
    sa.Column("group_id", Uuid, primary_key=True),
    sa.Column("slot", sa.String(32), primary_key=True, comment="a host's id, or 'all' where one host takes all"),
    sa.Column("host_id", sa.BigInteger, nullable=False, comment="where those in this slot are"),
    sa.Column("members", sa.Integer, nullable=False),
)

group_claims = sa.Table(
    "group_claims",
    CELL,
    sa.Column("server_id", Uuid, primary_key=True),
    sa.Column("group_id", Uuid, nullable=False),
    sa.Column("slot", sa.String(32), nullable=False),
)
