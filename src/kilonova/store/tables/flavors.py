"""Flavors, key pairs and host aggregates: small things that the whole cloud shares."""

import sqlalchemy as sa

from kilonova.store.tables.base import GLOBAL, Json, Serial, Timestamp, Uuid

flavors = sa.Table(
    "flavors",
    GLOBAL,
    sa.Column("id", Serial, primary_key=True),
    sa.Column("flavor_id", sa.String(255), nullable=False, unique=True, comment="the id that users see"),
    sa.Column("name", sa.String(255), nullable=False, unique=True),
    sa.Column("description", sa.Text, nullable=True),
    sa.Column("vcpus", sa.Integer, nullable=False),
    sa.Column("memory_mib", sa.Integer, nullable=False),
    sa.Column("root_gib", sa.Integer, nullable=False),
    sa.Column("ephemeral_gib", sa.Integer, nullable=False, default=0),
    sa.Column("swap_mib", sa.Integer, nullable=False, default=0),
    sa.Column("rxtx_factor", sa.Float, nullable=False, default=1.0),
    sa.Column("is_public", sa.Boolean, nullable=False, default=True),
    sa.Column("disabled", sa.Boolean, nullable=False, default=False),
    sa.Column("extra_specs", Json, nullable=False),
    sa.Column("created_at", Timestamp, nullable=False),
)

flavor_access = sa.Table(
    "flavor_access",
    GLOBAL,
    sa.Column("flavor_id", sa.String(255), primary_key=True),
    sa.Column("project_id", sa.String(64), primary_key=True),
)

keypairs = sa.Table(
    "keypairs",
    GLOBAL,
    sa.Column("id", Serial, primary_key=True),
    sa.Column("user_id", sa.String(64), nullable=False),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("type", sa.String(16), nullable=False, comment="ssh or x509"),
    sa.Column("fingerprint", sa.String(255), nullable=False),
    sa.Column("public_key", sa.Text, nullable=False),
    sa.Column("created_at", Timestamp, nullable=False),
    sa.UniqueConstraint("user_id", "name", name="keypairs_name"),
)

aggregates = sa.Table(
    "aggregates",
    GLOBAL,
    sa.Column("id", Serial, primary_key=True),
    sa.Column("uuid", Uuid, nullable=False, unique=True),
    sa.Column("name", sa.String(255), nullable=False, unique=True),
    sa.Column("metadata", Json, nullable=False),
    sa.Column("created_at", Timestamp, nullable=False),
    sa.Column("updated_at", Timestamp, nullable=True),
)

aggregate_hosts = sa.Table(
    "aggregate_hosts",
    GLOBAL,
    sa.Column("aggregate_id", sa.BigInteger, primary_key=True),
    sa.Column("host", sa.String(255), primary_key=True),
    sa.Index("aggregate_hosts_host", "host"),
)

versions = sa.Table(
    "versions",
    GLOBAL,
    sa.Column("name", sa.String(64), primary_key=True, comment="what changed: aggregates"),
    sa.Column("value", sa.BigInteger, nullable=False),
)
