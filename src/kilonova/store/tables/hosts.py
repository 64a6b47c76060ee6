"""Hosts, the services on them, and what of them is taken."""

import sqlalchemy as sa

from kilonova.store.tables.base import CELL, Json, Serial, Timestamp, Uuid

services = sa.Table(
    "services",
    CELL,
    sa.Column("id", Serial, primary_key=True),
    sa.Column("uuid", Uuid, nullable=False, unique=True),
    sa.Column("service", sa.String(64), nullable=False, comment="compute, conductor, scheduler, network, api"),
    sa.Column("host", sa.String(255), nullable=False),
    sa.Column("agent_id", Uuid, nullable=False, comment="the process that owns the name now"),
    sa.Column("is_up", sa.Boolean, nullable=False),
    sa.Column("state_since", Timestamp, nullable=False),
    sa.Column("disabled", sa.Boolean, nullable=False, default=False),
    sa.Column("disabled_reason", sa.String(255), nullable=True),
    sa.Column("forced_down", sa.Boolean, nullable=False, default=False),
    sa.Column("last_seen_at", Timestamp, nullable=False),
    sa.Column("created_at", Timestamp, nullable=False),
    sa.Column("updated_at", Timestamp, nullable=False),
    sa.UniqueConstraint("service", "host", name="services_name"),
    sa.Index("services_seen", "is_up", "last_seen_at"),
)

service_events = sa.Table(
    "service_events",
    CELL,
    sa.Column("id", Serial, primary_key=True),
    sa.Column("service", sa.String(64), nullable=False),
    sa.Column("host", sa.String(255), nullable=False),
    sa.Column("event", sa.String(32), nullable=False, comment="a kilonova.model.service.ServiceChange"),
    sa.Column("cause", sa.String(255), nullable=False),
    sa.Column("at", Timestamp, nullable=False),
    sa.Index("service_events_at", "at"),
    sa.Index("service_events_name", "host", "service"),
)

hosts = sa.Table(
    "hosts",
    CELL,
    sa.Column("id", Serial, primary_key=True),
    sa.Column("uuid", Uuid, nullable=False, unique=True),
    sa.Column("name", sa.String(255), nullable=False, unique=True),
    sa.Column("seq", sa.BigInteger, nullable=False, comment="place in the feed of changes"),
    sa.Column("report", Json, nullable=False, comment="the agent's last HostReport"),
    sa.Column("failed_builds", sa.Integer, nullable=False, default=0),
    sa.Column("deleted", sa.Boolean, nullable=False, default=False),
    sa.Column("created_at", Timestamp, nullable=False),
    sa.Column("updated_at", Timestamp, nullable=False),
    sa.Index("hosts_feed", "seq"),
)

inventories = sa.Table(
    "inventories",
    CELL,
    sa.Column("host_id", sa.BigInteger, primary_key=True),
    sa.Column("resource_class", sa.String(64), primary_key=True),
    sa.Column("total", sa.BigInteger, nullable=False),
    sa.Column("reserved", sa.BigInteger, nullable=False, default=0),
    sa.Column("allocation_ratio", sa.Float, nullable=False),
    sa.Column("used", sa.BigInteger, nullable=False, default=0),
)

allocations = sa.Table(
    "allocations",
    CELL,
    sa.Column("server_id", Uuid, primary_key=True),
    sa.Column("host_id", sa.BigInteger, primary_key=True),
    sa.Column("resource_class", sa.String(64), primary_key=True),
    sa.Column("used", sa.BigInteger, nullable=False),
    sa.Index("allocations_host", "host_id"),
)

sequences = sa.Table(
    "sequences",
    CELL,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("value", sa.BigInteger, nullable=False),
)
