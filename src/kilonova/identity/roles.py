"""Which roles somebody has somewhere: its own, those of its groups, and those that these imply."""

from collections.abc import Collection
from typing import Any, Final

from kilonova.store.queries import identity as rows
from kilonova.store.queries import role_assignments
from kilonova.store.transactions import Tx

IMPLIED: Final = {
    "admin": ("manager", "member", "reader"),
    "manager": ("member", "reader"),
    "member": ("reader",),
}
"""Who has the first has the others too."""


def effective_roles(tx: Tx, user_id: str, scope: str, scope_id: str) -> list[dict[str, Any]]:
    """Roles of a user on a scope, by name."""
    held = role_assignments.role_ids(tx, user_id, scope, scope_id)
    return with_implied(rows.find(tx, "role"), held) if held else []


def with_implied(roles: Collection[dict[str, Any]], held: Collection[str]) -> list[dict[str, Any]]:
    """Those of all `roles` whose id is in `held`, or which one of these implies."""
    names = {role["name"] for role in roles if role["id"] in held}
    for name in list(names):
        names.update(IMPLIED.get(name, ()))
    return [role for role in roles if role["name"] in names]
