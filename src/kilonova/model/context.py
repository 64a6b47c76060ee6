"""Who asks, and for which request: handed through every use case."""

from collections.abc import Callable
from typing import Any

import msgspec

Answer = tuple[int, Any]
"""Status, and what else of an answer is kept, as plain values."""


class Once(msgspec.Struct, kw_only=True):
    """A request that shall have one effect however often it is sent: its ``Idempotency-Key``, hashed."""

    key: str
    fingerprint: str
    """Of the body."""
    secret: bytes
    """What the kept answer is encrypted with."""
    render: Callable[[Any], Answer | None] | None = None
    """From what was made to the answer, which then is kept together with it. None: not yet, more will be made."""
    is_kept: bool = False
    """Whether the answer is kept already."""
    taken: int = 0
    """Effects so far: a request for several things has several."""

    def next(self) -> str:
        """The key of the next effect."""
        self.taken += 1
        return self.key if self.taken == 1 else f"{self.key}#{self.taken}"


class RequestContext(msgspec.Struct, frozen=True, kw_only=True):
    """The authenticated caller of one request.

    `roles` are the effective role names on the scope. Exactly one of `project_id`, `domain_id` and
    `system` is set for a scoped token; none for an unscoped one.
    """

    request_id: str
    user_id: str = ""
    user_name: str = ""
    user_domain_id: str = "default"
    project_id: str = ""
    project_name: str = ""
    project_domain_id: str = "default"
    domain_id: str = ""
    system: bool = False
    roles: tuple[str, ...] = ()
    token_id: str = ""
    """The audit id of the token, never the token itself."""
    is_restricted: bool = False
    """By an application credential that may not be used to manage credentials."""
    source_address: str = ""
    once: Once | None = None

    @property
    def is_admin(self) -> bool:
        """Whether the caller holds the ``admin`` role on its scope."""
        return "admin" in self.roles

    def credentials(self) -> dict[str, object]:
        """The form in which policy rules see the caller (oslo.policy's ``creds``)."""
        return {
            "user_id": self.user_id,
            "project_id": self.project_id or None,
            "domain_id": self.domain_id or None,
            "system_scope": "all" if self.system else None,
            "roles": list(self.roles),
            "is_admin": self.is_admin,
        }
