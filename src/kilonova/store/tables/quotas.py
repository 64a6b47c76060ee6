"""Limits and what is used of them."""

import sqlalchemy as sa

from kilonova.store.tables.base import GLOBAL

quota_limits = sa.Table(
    "quota_limits",
    GLOBAL,
    sa.Column("owner", sa.String(64), primary_key=True, comment="project or user; empty: the default for all"),
    sa.Column("resource", sa.String(64), primary_key=True),
    sa.Column("limit", sa.BigInteger, nullable=False, comment="-1: none"),
)

quota_usages = sa.Table(
    "quota_usages",
    GLOBAL,
    sa.Column("owner", sa.String(64), primary_key=True),
    sa.Column("resource", sa.String(64), primary_key=True),
    sa.Column("used", sa.BigInteger, nullable=False, default=0),
)
