"""Users, groups, projects, domains, roles, who has which role where, what has been revoked, and failed logins."""

import sqlalchemy as sa

from kilonova.store.tables.base import GLOBAL, Json, Timestamp

domains = sa.Table(
    "domains",
    GLOBAL,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("name", sa.String(64), nullable=False, unique=True),
    sa.Column("description", sa.Text, nullable=False, default=""),
    sa.Column("enabled", sa.Boolean, nullable=False, default=True),
    sa.Column("tokens_since", Timestamp, nullable=True),
)
projects = sa.Table(
    "projects",
    GLOBAL,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("domain_id", sa.String(64), nullable=False),
    sa.Column("name", sa.String(64), nullable=False),
    sa.Column("description", sa.Text, nullable=False, default=""),
    sa.Column("enabled", sa.Boolean, nullable=False, default=True),
    sa.Column("tokens_since", Timestamp, nullable=True),
    sa.UniqueConstraint("domain_id", "name", name="projects_name"),
)
users = sa.Table(
    "users",
    GLOBAL,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("domain_id", sa.String(64), nullable=False),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("password_hash", sa.String(255), nullable=True),
    sa.Column("email", sa.String(255), nullable=True),
    sa.Column("description", sa.Text, nullable=True),
    sa.Column("default_project_id", sa.String(64), nullable=True),
    sa.Column("enabled", sa.Boolean, nullable=False, default=True),
    sa.Column("tokens_since", Timestamp, nullable=True),
    sa.UniqueConstraint("domain_id", "name", name="users_name"),
)
roles = sa.Table(
    "roles",
    GLOBAL,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("name", sa.String(255), nullable=False, unique=True),
    sa.Column("description", sa.Text, nullable=True),
)
role_assignments = sa.Table(
    "role_assignments",
    GLOBAL,
    sa.Column("user_id", sa.String(64), primary_key=True),
    sa.Column("scope", sa.String(16), primary_key=True),
    sa.Column("scope_id", sa.String(64), primary_key=True),
    sa.Column("role_id", sa.String(64), primary_key=True),
)
groups = sa.Table(
    "identity_groups",
    GLOBAL,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("domain_id", sa.String(64), nullable=False),
    sa.Column("name", sa.String(64), nullable=False),
    sa.Column("description", sa.Text, nullable=False, default=""),
    sa.UniqueConstraint("domain_id", "name", name="identity_groups_name"),
)
group_members = sa.Table(
    "identity_group_members",
    GLOBAL,
    sa.Column("group_id", sa.String(64), primary_key=True),
    sa.Column("user_id", sa.String(64), primary_key=True),
    sa.Index("identity_group_members_user", "user_id"),
)
group_assignments = sa.Table(
    "group_role_assignments",
    GLOBAL,
    sa.Column("group_id", sa.String(64), primary_key=True),
    sa.Column("scope", sa.String(16), primary_key=True),
    sa.Column("scope_id", sa.String(64), primary_key=True),
    sa.Column("role_id", sa.String(64), primary_key=True),
)
application_credentials = sa.Table(
    "application_credentials",
    GLOBAL,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("user_id", sa.String(64), nullable=False),
    sa.Column("project_id", sa.String(64), nullable=False),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("secret_hash", sa.String(255), nullable=False),
    sa.Column("description", sa.Text, nullable=True),
    sa.Column("roles", Json, nullable=False),
    sa.Column("unrestricted", sa.Boolean, nullable=False),
    sa.Column("expires_at", Timestamp, nullable=True),
    sa.UniqueConstraint("user_id", "name", name="application_credentials_name"),
)
revocations = sa.Table(
    "revocations",
    GLOBAL,
    sa.Column("audit_id", sa.String(64), primary_key=True),
    sa.Column("expires_at", Timestamp, nullable=False),
)
failed_logins = sa.Table(
    "failed_logins",
    GLOBAL,
    sa.Column("key", sa.String(64), primary_key=True, comment="hash of who was tried from where; never the name"),
    sa.Column("count", sa.Integer, nullable=False),
    sa.Column("since", Timestamp, nullable=False, comment="of the first of them"),
    sa.Index("failed_logins_since", "since"),
)
