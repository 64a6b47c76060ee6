"""Networks, subnets, ports, and every address that is taken."""

import sqlalchemy as sa

from kilonova.store.tables.base import GLOBAL, Json, Timestamp, Uuid

networks = sa.Table(
    "networks",
    GLOBAL,
    sa.Column("id", Uuid, primary_key=True),
    sa.Column("project_id", sa.String(64), nullable=False),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("description", sa.String(255), nullable=False),
    sa.Column("admin_state_up", sa.Boolean, nullable=False),
    sa.Column("shared", sa.Boolean, nullable=False),
    sa.Column("external", sa.Boolean, nullable=False),
    sa.Column("mtu", sa.Integer, nullable=False),
    sa.Column("port_security", sa.Boolean, nullable=False),
    sa.Column("created_at", Timestamp, nullable=False),
    sa.Column("updated_at", Timestamp, nullable=False),
    sa.Index("networks_project", "project_id"),
)

subnets = sa.Table(
    "subnets",
    GLOBAL,
    sa.Column("id", Uuid, primary_key=True),
    sa.Column("network_id", Uuid, nullable=False),
    sa.Column("project_id", sa.String(64), nullable=False),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("description", sa.String(255), nullable=False),
    sa.Column("cidr", sa.String(32), nullable=False),
    sa.Column("gateway_ip", sa.String(32), nullable=True),
    sa.Column("host_address", sa.String(32), nullable=False),
    sa.Column("enable_dhcp", sa.Boolean, nullable=False),
    sa.Column("dns", Json, nullable=False),
    sa.Column("host_routes", Json, nullable=False),
    sa.Column("pools", Json, nullable=False),
    sa.Column("next_address", sa.BigInteger, nullable=False, comment="where the search for a free one begins"),
    sa.Column("created_at", Timestamp, nullable=False),
    sa.Column("updated_at", Timestamp, nullable=False),
    sa.Index("subnets_network", "network_id"),
)

ports = sa.Table(
    "ports",
    GLOBAL,
    sa.Column("id", Uuid, primary_key=True),
    sa.Column("network_id", Uuid, nullable=False),
    sa.Column("project_id", sa.String(64), nullable=False),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("description", sa.String(255), nullable=False),
    sa.Column("mac", sa.String(17), nullable=False),
    sa.Column("admin_state_up", sa.Boolean, nullable=False),
    sa.Column("device_id", sa.String(255), nullable=False),
    sa.Column("device_owner", sa.String(255), nullable=False),
    sa.Column("host", sa.String(255), nullable=False),
    sa.Column("hostname", sa.String(255), nullable=False),
    sa.Column("auto", sa.Boolean, nullable=False),
    sa.Column("port_security", sa.Boolean, nullable=False),
    sa.Column("allowed_address_pairs", Json, nullable=False),
    sa.Column("created_at", Timestamp, nullable=False),
    sa.Column("updated_at", Timestamp, nullable=False),
    sa.UniqueConstraint("network_id", "mac", name="ports_mac"),
    sa.Index("ports_device", "device_id"),
    sa.Index("ports_host", "host"),
    sa.Index("ports_project", "project_id"),
)

addresses = sa.Table(
    "addresses",
    GLOBAL,
    sa.Column("subnet_id", Uuid, primary_key=True),
    sa.Column("address", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("port_id", Uuid, nullable=False),
    sa.Index("addresses_port", "port_id"),
)
