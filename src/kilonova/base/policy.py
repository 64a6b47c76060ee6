"""Who may do what: rules in oslo.policy's syntax, with defaults that a file overrides, answered from memory.

A rule's default is data (`Default`). The operator's file, in oslo.policy's form (YAML, or JSON as a kind of YAML), wins
by name and is read again when it changes. oslo.policy itself parses and decides; since that takes tens of
microseconds a check, each decision is remembered by what it depended on: the rule, the caller's credentials
and the target. A rule that nobody declared allows nothing.

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


class Policy:
    """All rules of one cloud."""

    def __init__(self, defaults: Iterable[Default], *, clock: Clock, file: Path | None = None) -> None:
        """
        Args:
            file: rules that win over the defaults; it need not exist yet.

        Raises:
            PolicyFileError: the file is there and cannot be used.
            ValueError: two defaults have the same name and do not agree.
        """
        self._defaults: dict[str, Default] = {}
        for default in defaults:
            if self._defaults.setdefault(default.name, default).check != default.check:
                raise ValueError(f"The policy rule {default.name} has two defaults.")
        self._scopes = {d.name: frozenset(d.scopes) for d in self._defaults.values() if d.scopes}
        self._clock = clock
        self._file = file
        self._stamp = self._stamp_now()
        self._look_again = clock.monotonic() + RECHECK_S
        self._remembered: dict[Any, bool] = {}
        self._reported: set[str] = set()
        self._enforcer = self._load()

    def allows(self, caller: Caller, rule: str, target: Mapping[str, Any] | None = None) -> bool:
        """Whether `caller` may do `rule` to `target` (its ``project_id``, ``user_id`` and so on)."""
        if self._file is not None and self._clock.monotonic() >= self._look_again:
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
        """Whether `rule` is declared, by a default or in the file."""
        return rule in self._enforcer.rules

    @property
    def defaults(self) -> tuple[Default, ...]:
        """Every rule's default, for documentation."""
        return tuple(self._defaults.values())

    def _decide(self, credentials: Mapping[str, Any], rule: str, target: Mapping[str, Any] | None) -> bool:
        scopes = self._scopes.get(rule)
        if scopes is not None and _scope(credentials) not in scopes:
            return False
        if rule not in self._enforcer.rules:
            if rule not in self._reported:
                self._reported.add(rule)
                log.error("unknown policy rule", rule=rule)
            return False
        return bool(self._enforcer.enforce(rule, dict(target or {}), dict(credentials)))

    def _load(self) -> "oslo.Enforcer":
        # Imported here because it costs 0.1 s: what only declares rules (and every command line) goes without.
        from oslo_config import cfg
        from oslo_policy import policy as oslo

        rules = {default.name: default.check for default in self._defaults.values()}
        if self._file is not None and self._stamp is not None:
            rules.update(_read(self._file))
        conf = cfg.ConfigOpts()  # our own: oslo.policy wants one, and nobody else shall see it
        conf(args=[], default_config_files=[], default_config_dirs=[])
        enforcer = oslo.Enforcer(conf, use_conf=False)
        enforcer.set_rules(oslo.Rules.from_dict(rules), overwrite=True, use_conf=False)
        return enforcer

    def _reload_if_changed(self) -> None:
        self._look_again = self._clock.monotonic() + RECHECK_S
        stamp = self._stamp_now()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._enforcer = self._load()
        except PolicyFileError as error:
            # A slip of the pen must not stop a running cloud, nor open it: what held goes on to hold.
            log.error("policy file not usable, the rules stay as they were", problem=str(error))
            return
        self._remembered.clear()
        log.info("policy file read again", file=str(self._file))

    def _stamp_now(self) -> tuple[int, int, int] | None:
        if self._file is None:
            return None
        try:
            stat = self._file.stat()
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
