"""The first start: a domain, a project, the roles, and an administrator with a password that nobody chose."""

from typing import Final

from kilonova.base.ids import Ids
from kilonova.identity.passwords import Passwords
from kilonova.model.errors import AlreadyExists
from kilonova.store.engine import Store
from kilonova.store.queries import identity as rows
from kilonova.store.queries import role_assignments
from kilonova.store.transactions import Tx

ROLES: Final = ("admin", "member", "reader", "manager", "service")


async def bootstrap(store: Store, ids: Ids, passwords: Passwords) -> str | None:
    """Make the first domain, project, user and roles; the generated password, or None if they were there."""
    if await store.read(rows.find, "domain", limit=1):
        return None
    password = ids.secret(18)
    hashed = await passwords.hash(password)
    try:
        await store.run(_bootstrap, hashed, {name: ids.uuid().replace("-", "") for name in ("project", "user", *ROLES)})
    except AlreadyExists:  # another process was first
        return None
    return password


def _bootstrap(tx: Tx, hashed: str, new: dict[str, str]) -> None:
    domain = {"id": "default", "name": "Default", "description": "The default domain", "enabled": True}
    rows.insert(tx, "domain", domain)
    there = {"domain_id": "default", "name": "admin", "enabled": True}
    rows.insert(tx, "project", {"id": new["project"], "description": "", **there})
    rows.insert(tx, "user", {"id": new["user"], "password_hash": hashed, **there})
    for name in ROLES:
        rows.insert(tx, "role", {"id": new[name], "name": name})
    for scope, scope_id in (("project", new["project"]), ("system", "all"), ("domain", "default")):
        role_assignments.assign(tx, "user", new["user"], scope, scope_id, new["admin"])
