"""Who may do what: rules in oslo.policy's syntax, with defaults that a file overrides, answered from memory.

A rule's default is data (`Default`). Each service has its own set (`RuleSet`), because the services call different
things ``admin_or_owner``; and its own file, in oslo.policy's form (YAML, or JSON as a kind of YAML), which wins by name
and is read again when it changes. oslo.policy itself parses and decides; since that takes tens of microseconds and
more, each decision is remembered by what it depended on: the rule, the caller's credentials and the target. A rule
that nobody declared allows nothing.

This room knows no errors of the cloud: `kilonova.cloud.policy` makes a refusal of a "no".
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from kilonova.base.clock import Clock
from kilonova.base.log import get_logger

if TYPE_CHECKING:
    from oslo_policy import policy as oslo

log = get_logger(__name__)

RECHECK_S = 1.0
"""How often, at most, the file's time of change is looked at."""

MAX_REMEMBERED = 65536
"""Decisions kept in memory (some 300 bytes each); at more, all are forgotten."""


class PolicyFileError(Exception):
    """The file of rules cannot be used; the message names it and says why."""


class Caller(Protocol):
    """Who asks."""

    def credentials(self) -> Mapping[str, Any]:
        """What rules may look at: ``user_id``, ``project_id``, ``roles`` (a list) and so on."""
        ...


@dataclass(frozen=True)
class Default:
    """One rule as it stands when the operator says nothing."""

    name: str
    check: str
    description: str = ""
    scopes: tuple[str, ...] = ()
    """Besides the check, the token's scope must be one of these: ``project``, ``domain``, ``system``. None is any."""


@dataclass(frozen=True)
class RuleSet:
    """The rules of one service."""

    service: str
    defaults: tuple[Default, ...]
    file: Path | None = None
    """Rules that win over the defaults. It need not exist yet."""


class Policy:
    """All rules of one cloud. Where two services have a rule of the same name, the first answers for it."""

    def __init__(self, sets: Iterable[RuleSet], *, clock: Clock) -> None:
        """
        Raises:
            PolicyFileError: a file is there and cannot be used.
        """
        self._clock = clock
        self._sets = tuple(sets)
        self._stamps = [_stamp(one.file) for one in self._sets]
        self._look_again = clock.monotonic() + RECHECK_S
        self._remembered: dict[Any, bool] = {}
        self._reported: set[str] = set()
        self._enforcers = [_enforcer(one) for one in self._sets]
        self._owners = self._find_owners()
        self._scopes = {d.name: frozenset(d.scopes) for one in reversed(self._sets) for d in one.defaults if d.scopes}

    def allows(self, caller: Caller, rule: str, target: Mapping[str, Any] | None = None) -> bool:
        """Whether `caller` may do `rule` to `target` (its ``project_id``, ``user_id`` and so on)."""
        if self._clock.monotonic() >= self._look_again:
            self._reload_if_changed()
        credentials = caller.credentials()
        key = (
            rule,
            *[tuple(value) if type(value) is list else value for value in credentials.values()],
            *(target.items() if target else ()),
        )
        try:
            known = self._remembered.get(key)
        except TypeError:  # a target with lists or objects in it
            return self._decide(credentials, rule, target)
        if known is None:
            if len(self._remembered) >= MAX_REMEMBERED:
                self._remembered.clear()
            known = self._remembered[key] = self._decide(credentials, rule, target)
        return known

    def knows(self, rule: str) -> bool:
        """Whether `rule` is declared, by a default or in a file."""
        return rule in self._owners

    @property
    def sets(self) -> tuple[RuleSet, ...]:
        """Every service's rules, for documentation."""
        return self._sets

    def _decide(self, credentials: Mapping[str, Any], rule: str, target: Mapping[str, Any] | None) -> bool:
        scopes = self._scopes.get(rule)
        if scopes is not None and _scope(credentials) not in scopes:
            return False
        enforcer = self._owners.get(rule)
        if enforcer is None:
            if rule not in self._reported:
                self._reported.add(rule)
                log.error("unknown policy rule", rule=rule)
            return False
        return bool(enforcer.enforce(rule, dict(target or {}), dict(credentials)))

    def _find_owners(self) -> dict[str, "oslo.Enforcer"]:
        # A service's file may not take over another service's rules by naming them.
        found = {rule: enforcer for enforcer in reversed(self._enforcers) for rule in enforcer.rules}
        for one, enforcer in reversed([*zip(self._sets, self._enforcers, strict=True)]):
            found.update((default.name, enforcer) for default in one.defaults)
        return found

    def _reload_if_changed(self) -> None:
        self._look_again = self._clock.monotonic() + RECHECK_S
        for index, one in enumerate(self._sets):
            stamp = _stamp(one.file)
            if stamp == self._stamps[index]:
                continue
            self._stamps[index] = stamp
            try:
                self._enforcers[index] = _enforcer(one)
            except PolicyFileError as error:
                # A slip of the pen must not stop a running cloud, nor open it: what held goes on to hold.
                log.error("policy file not usable, the rules stay as they were", problem=str(error))
                continue
            self._owners = self._find_owners()
            self._remembered.clear()
            log.info("policy file read again", file=str(one.file))


def _enforcer(one: RuleSet) -> "oslo.Enforcer":
    # Imported here because it costs 0.1 s: what only declares rules (and every command line) goes without.
    from oslo_config import cfg
    from oslo_policy import policy as oslo

    rules: dict[str, Any] = {default.name: default.check for default in one.defaults}
    if len(rules) != len(one.defaults):
        raise ValueError(f"Two of the policy rules of {one.service} have the same name.")
    if one.file is not None and one.file.exists():
        rules.update(_read(one.file))
    conf = cfg.ConfigOpts()  # our own: oslo.policy wants one, and nobody else shall see it
    conf(args=[], default_config_files=[], default_config_dirs=[])
    enforcer = oslo.Enforcer(conf, use_conf=False)
    enforcer.set_rules(oslo.Rules.from_dict(rules), overwrite=True, use_conf=False)
    return enforcer


def _stamp(file: Path | None) -> tuple[int, int, int] | None:
    if file is None:
        return None
    try:
        stat = file.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def _scope(credentials: Mapping[str, Any]) -> str:
    if credentials.get("system_scope"):
        return "system"
    return "domain" if credentials.get("domain_id") and not credentials.get("project_id") else "project"


def _read(file: Path) -> dict[str, str]:
    from oslo_policy import policy as oslo  # loaded already: see _load

    try:
        found: Any = oslo.parse_file_contents(file.read_text())
    except OSError as error:
        raise PolicyFileError(f"The policy file {file} cannot be read: {error.strerror}.") from None
    except ValueError as error:
        raise PolicyFileError(f"The policy file {file} is not YAML: {error}") from None
    if not isinstance(found, dict):
        raise PolicyFileError(f"The policy file {file} must map names of rules to checks.")
    for name, check in found.items():
        if not isinstance(name, str) or not isinstance(check, str | list):
            raise PolicyFileError(f"The rule {name} in {file} must be a text (or a list in the old form).")
    for name, parsed in oslo.Rules.from_dict(found).items():
        # oslo.policy takes what it cannot read for "never", and says so in its own log only.
        if str(parsed) == "!" and found[name] != "!":
            raise PolicyFileError(f"The rule {name} in {file} cannot be understood: {found[name]}")
    return found
