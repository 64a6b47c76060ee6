"""The rules of `kilonova.base.policy` as the use cases ask them: a "no" is an error that a user can read."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any, ClassVar

from kilonova.base.clock import Clock
from kilonova.base.policy import Policy, RuleSet
from kilonova.cloud import policies
from kilonova.model.context import RequestContext
from kilonova.model.errors import PolicyDenied


@dataclass(frozen=True, kw_only=True)
class PolicyOptions:
    """``[policy]`` of kilonova.conf."""

    section: ClassVar[str] = "policy"

    policy_dir: str = ""
    """A directory with ``compute.yaml``, ``identity.yaml`` and so on: rules that win over the defaults, in the form of
    oslo.policy. Changes count from the next second on. Empty: the defaults alone."""


class CloudPolicy:
    """Decides for the use cases and for the routes of the APIs; the `policy` of `Parts`."""

    def __init__(self, rules: Policy) -> None:
        self.rules = rules
        self.allows = rules.allows

    @classmethod
    def load(cls, options: PolicyOptions, *, clock: Clock) -> "CloudPolicy":
        """Every service's rules, and the operator's files.

        Raises:
            PolicyFileError: a file is there and cannot be used.
        """
        folder = Path(options.policy_dir) if options.policy_dir else None
        sets = [
            RuleSet(name, defaults, folder / f"{name}.yaml" if folder else None)
            for name, defaults in every_service().items()
        ]
        return cls(Policy(sets, clock=clock))

    def authorize(self, ctx: RequestContext, rule: str, target: Mapping[str, Any] | None = None) -> None:
        """
        Raises:
            PolicyDenied: `rule` does not allow it to `ctx` on `target`.
        """
        if not self.rules.allows(ctx, rule, target):
            raise PolicyDenied(rule=rule)


def every_service() -> dict[str, Any]:
    """The ``DEFAULTS`` of each module of `kilonova.cloud.policies`, by the module's name."""
    names = sorted(module.name for module in iter_modules(policies.__path__))
    return {name: tuple(import_module(f"{policies.__name__}.{name}").DEFAULTS) for name in names}
