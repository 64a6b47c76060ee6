"""What of hosts is given out piece by piece: NUMA cells and PCI devices."""

import sqlalchemy as sa

from kilonova.store.tables.base import CELL, Json, Uuid

host_devices = sa.Table(
    "host_devices",
    CELL,
    sa.Column("host_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("version", sa.BigInteger, nullable=False, comment="grows with every change: writers check it"),
    sa.Column("document", Json, nullable=False, comment="a kilonova.model.devices.HostDevices"),
)

device_claims = sa.Table(
    "device_claims",
    CELL,
    sa.Column("server_id", Uuid, primary_key=True),
    sa.Column("host_id", sa.BigInteger, nullable=False),
    sa.Column("held", Json, nullable=False, comment="a kilonova.model.devices.Held"),
    sa.Index("device_claims_host", "host_id"),
)
