"""Images: what is known of each, its own properties and tags, and the projects that it is shared with."""

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from kilonova.store.tables.base import GLOBAL, Timestamp, Uuid

images = sa.Table(
    "images",
    GLOBAL,
    sa.Column("id", Uuid, primary_key=True),
    sa.Column("name", sa.String(255), nullable=True),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("visibility", sa.String(16), nullable=False),
    sa.Column("owner", sa.String(64), nullable=True, comment="a project"),
    sa.Column("disk_format", sa.String(20), nullable=True),
    sa.Column("container_format", sa.String(20), nullable=True),
    sa.Column("min_disk", sa.Integer, nullable=False, default=0, comment="GiB"),
    sa.Column("min_ram", sa.Integer, nullable=False, default=0, comment="MiB"),
    sa.Column("protected", sa.Boolean, nullable=False, default=False),
    sa.Column("hidden", sa.Boolean, nullable=False, default=False),
    sa.Column("size", sa.BigInteger, nullable=True),
    sa.Column("virtual_size", sa.BigInteger, nullable=True),
    sa.Column("checksum", sa.String(32), nullable=True, comment="MD5"),
    sa.Column("hash_algo", sa.String(16), nullable=True),
    sa.Column("hash_value", sa.String(128), nullable=True),
    sa.Column("location", sa.String(255), nullable=True, comment="what the store of bytes calls them"),
    sa.Column("upload_id", Uuid, nullable=True, comment="who may finish: the upload under way"),
    sa.Column("upload_seen_at", Timestamp, nullable=True, comment="when that upload last gave a sign of life"),
    sa.Column("created_at", Timestamp, nullable=False),
    sa.Column("updated_at", Timestamp, nullable=False),
    sa.Index("images_by_age", "created_at", "id"),
    sa.Index("images_of_owner", "owner", "created_at", "id"),
    sa.Index("images_seen", "visibility", "created_at", "id"),
    sa.Index("images_by_name", "name"),
    sa.Index("images_in_state", "status", "updated_at"),
)
"""A deleted image keeps its row for a while (status ``deleted``), so that its id is not used again."""

image_properties = sa.Table(
    "image_properties",
    GLOBAL,
    sa.Column("image_id", Uuid, primary_key=True),
    sa.Column("name", sa.String(255), primary_key=True),
    sa.Column("value", sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb"), nullable=False),
)

image_tags = sa.Table(
    "image_tags",
    GLOBAL,
    sa.Column("image_id", Uuid, primary_key=True),
    sa.Column("tag", sa.String(255), primary_key=True),
    sa.Index("image_tags_by_tag", "tag"),
)

image_members = sa.Table(
    "image_members",
    GLOBAL,
    sa.Column("image_id", Uuid, primary_key=True),
    sa.Column("member_id", sa.String(64), primary_key=True, comment="a project"),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("created_at", Timestamp, nullable=False),
    sa.Column("updated_at", Timestamp, nullable=False),
    sa.Index("image_members_of_project", "member_id", "status"),
)
