"""NUMA cells and PCI devices of hosts"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "host_devices",
        sa.Column("host_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("version", sa.BigInteger, nullable=False, comment="grows with every change: writers check it"),
        sa.Column("document", sa.JSON, nullable=False, comment="a kilonova.model.devices.HostDevices"),
    )
    op.create_table(
        "device_claims",
        sa.Column("server_id", sa.String(36), primary_key=True),
        sa.Column("host_id", sa.BigInteger, nullable=False),
        sa.Column("held", sa.JSON, nullable=False, comment="a kilonova.model.devices.Held"),
    )
    op.create_index("device_claims_host", "device_claims", ["host_id"])


def downgrade() -> None:
    op.drop_table("device_claims")
    op.drop_table("host_devices")
