"""The rules of `kilonova.base.policy` as the use cases ask them: a "no" is an error that a user can read."""

from collections.abc import Mapping
from typing import Any

from kilonova.base.policy import Policy
from kilonova.model.context import RequestContext
from kilonova.model.errors import PolicyDenied


class CloudPolicy:
    """Decides for the use cases and for the routes of the APIs; the `policy` of `Parts`."""

    def __init__(self, rules: Policy) -> None:
        self.rules = rules
        self.allows = rules.allows

    def authorize(self, ctx: RequestContext, rule: str, target: Mapping[str, Any] | None = None) -> None:
        """
        Raises:
            PolicyDenied: `rule` does not allow it to `ctx` on `target`.
        """
        if not self.rules.allows(ctx, rule, target):
            raise PolicyDenied(rule=rule)
