"""Images, and with whom they are shared."""

import sqlalchemy as sa

from kilonova.store.tables.base import GLOBAL, Json, Timestamp, Uuid

images = sa.Table(
    "images",
    GLOBAL,
    sa.Column("id", Uuid, primary_key=True),
    sa.Column("name", sa.String(255), nullable=True),
    sa.Column("owner", sa.String(64), nullable=False),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("visibility", sa.String(16), nullable=False),
    sa.Column("disk_format", sa.String(16), nullable=True),
    sa.Column("container_format", sa.String(16), nullable=True),
    sa.Column("min_disk", sa.Integer, nullable=False, default=0),
    sa.Column("min_ram", sa.Integer, nullable=False, default=0),
    sa.Column("protected", sa.Boolean, nullable=False, default=False),
    sa.Column("hidden", sa.Boolean, nullable=False, default=False),
    sa.Column("size", sa.BigInteger, nullable=True),
    sa.Column("virtual_size", sa.BigInteger, nullable=True),
    sa.Column("checksum", sa.String(32), nullable=True),
    sa.Column("hash_value", sa.String(128), nullable=True),
    sa.Column("tags", Json, nullable=False),
    sa.Column("properties", Json, nullable=False),
    sa.Column("created_at", Timestamp, nullable=False),
    sa.Column("updated_at", Timestamp, nullable=False),
    sa.Index("images_created", "created_at", "id"),
)

image_members = sa.Table(
    "image_members",
    GLOBAL,
    sa.Column("image_id", Uuid, primary_key=True),
    sa.Column("project_id", sa.String(64), primary_key=True),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("created_at", Timestamp, nullable=False),
    sa.Column("updated_at", Timestamp, nullable=False),
)
