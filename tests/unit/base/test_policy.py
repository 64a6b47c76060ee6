"""Rules: defaults, files that win, what is remembered, and what happens when a file is wrong."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import structlog

from kilonova.base import policy as room
from kilonova.base.policy import Default, Policy, PolicyFileError, RuleSet
from kilonova.cloud.policies import compute
from kilonova.cloud.policy import CloudPolicy, PolicyOptions
from kilonova.model.context import RequestContext
from kilonova.model.errors import PolicyDenied


@dataclass
class Hands:
    """A clock that a test moves."""

    seconds: float = 0.0

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.seconds, UTC)

    def monotonic(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        self.seconds += seconds


@dataclass
class Caller:
    roles: list[str] = field(default_factory=list)
    project_id: str | None = "p"
    user_id: str = "u"
    domain_id: str | None = None
    system_scope: str | None = None
    asked: int = 0

    def credentials(self) -> Mapping[str, Any]:
        return {
            "user_id": self.user_id,
            "project_id": self.project_id,
            "domain_id": self.domain_id,
            "system_scope": self.system_scope,
            "roles": self.roles,
        }


RULES = (
    Default("admin", "role:admin"),
    Default("member", "role:member and project_id:%(project_id)s"),
    Default("member_or_admin", "rule:member or rule:admin"),
    Default("own", "user_id:%(user_id)s"),
    Default("anyone", "@"),
    Default("nobody", "!"),
    Default("empty", ""),
    Default("not_reader", "not role:reader"),
    Default("in_project", "rule:member_or_admin", scopes=("project",)),
    Default("target_list", "'x':%(kind)s"),
)
MEMBER, ADMIN, READER = Caller(["member", "reader"]), Caller(["admin"], "other"), Caller(["reader"])


def rules(file: Path | None = None, clock: Hands | None = None) -> Policy:
    return Policy([RuleSet("sample", RULES, file)], clock=clock or Hands())


@pytest.mark.parametrize(
    ("caller", "rule", "target", "allowed"),
    [
        (MEMBER, "member", {"project_id": "p"}, True),
        (MEMBER, "member", {"project_id": "q"}, False),
        (MEMBER, "member", {}, False),
        (MEMBER, "member", None, False),
        (READER, "member", {"project_id": "p"}, False),
        (ADMIN, "member_or_admin", {"project_id": "p"}, True),
        (Caller(["Admin"]), "admin", None, True),
        (MEMBER, "own", {"user_id": "u"}, True),
        (MEMBER, "own", {"user_id": "v"}, False),
        (Caller(), "anyone", None, True),
        (ADMIN, "nobody", None, False),
        (Caller(), "empty", None, True),
        (READER, "not_reader", None, False),
        (Caller(), "not_reader", None, True),
        (ADMIN, "no:such:rule", None, False),
        (MEMBER, "target_list", {"kind": "x"}, True),
    ],
)
def test_decisions(caller: Caller, rule: str, target: dict[str, Any] | None, allowed: bool) -> None:
    policy = rules()
    assert [policy.allows(caller, rule, target) for _ in range(3)] == [allowed] * 3


@pytest.mark.parametrize(
    ("caller", "allowed"),
    [
        (Caller(["admin"], "p"), True),
        (Caller(["admin"], None, system_scope="all"), False),
        (Caller(["admin"], None, domain_id="d"), False),
        (Caller(["admin"], "p", domain_id="d"), True),
    ],
)
def test_a_rule_may_want_a_scope_besides(caller: Caller, allowed: bool) -> None:
    assert rules().allows(caller, "in_project", {"project_id": "p"}) is allowed


def test_a_decision_is_remembered_by_all_that_it_depends_on(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = rules()
    asked: list[str] = []
    decide = policy._decide
    monkeypatch.setattr(policy, "_decide", lambda c, rule, t: (asked.append(rule), decide(c, rule, t))[1])
    for _ in range(2):
        assert policy.allows(Caller(["member"], "p"), "member", {"project_id": "p"})
        assert not policy.allows(Caller(["member"], "q"), "member", {"project_id": "p"})
        assert not policy.allows(Caller(["member"], "p"), "member", {"project_id": "q"})
        assert not policy.allows(Caller(["reader"], "p"), "member", {"project_id": "p"})
        assert not policy.allows(Caller(["member"], "p"), "admin", {"project_id": "p"})
    assert len(asked) == 5


def test_a_target_that_cannot_be_remembered_is_decided_all_the_same() -> None:
    assert rules().allows(MEMBER, "member", {"project_id": "p", "tags": ["a"], "more": {"x": 1}})


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MAX_REMEMBERED", 10)
    policy = rules()
    for n in range(100):
        assert policy.allows(MEMBER, "member", {"project_id": "p", "n": n})
        assert len(policy._remembered) <= 10


# ---- files ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        '"member": "role:reader"',
        "member: role:reader\nhelper: role:x\n",
        json.dumps({"member": "role:reader"}),
        "member: [[role:reader]]",
    ],
)
def test_a_file_wins_over_a_default(tmp_path: Path, text: str) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(text)
    policy = rules(file)
    assert policy.allows(READER, "member", {"project_id": "q"})
    assert not policy.allows(READER, "admin")


def test_a_changed_file_counts_after_a_second_and_comes_and_goes(tmp_path: Path) -> None:
    file, clock = tmp_path / "policy.yaml", Hands()
    policy = rules(file, clock)
    assert not policy.allows(READER, "admin")
    file.write_text("admin: role:reader")
    assert not policy.allows(READER, "admin")
    clock.seconds += 1
    assert policy.allows(READER, "admin")
    file.write_text("admin: role:somebody")
    clock.seconds += 1
    assert not policy.allows(READER, "admin")
    file.unlink()
    clock.seconds += 1
    assert policy.allows(ADMIN, "admin")


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "- a\n- b",
        "just text",
        "admin: 5",
        "5: role:admin",
        "admin: {a: b}",
        "admin: role admin or",
        "a: ((role:b)",
    ],
)
def test_a_file_that_is_wrong_stops_the_start_but_not_a_running_cloud(
    tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file, clock = tmp_path / "policy.yaml", Hands()
    file.write_text("admin: role:chief")
    policy = rules(file, clock)
    file.write_text(text)
    with pytest.raises(PolicyFileError, match=r"policy\.yaml"):
        rules(file)
    clock.seconds += 1
    with structlog.testing.capture_logs() as lines:
        assert policy.allows(Caller(["chief"]), "admin")
        assert not policy.allows(ADMIN, "admin")
    assert [line["log_level"] for line in lines] == ["error"]


def test_a_file_that_cannot_be_read_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(PolicyFileError, match="cannot be read: Is a directory"):
        rules(tmp_path)


def test_services_have_helpers_of_the_same_name_and_different_meaning() -> None:
    one = RuleSet("one", (Default("owner", "role:a"), Default("one:do", "rule:owner")))
    two = RuleSet("two", (Default("owner", "role:b"), Default("two:do", "rule:owner")))
    policy = Policy([one, two], clock=Hands())
    assert [policy.allows(Caller(["b"]), rule) for rule in ("one:do", "two:do", "owner")] == [False, True, False]


def test_a_services_file_does_not_reach_another_services_rules(tmp_path: Path) -> None:
    file = tmp_path / "one.yaml"
    file.write_text("two:do: '@'")
    one = RuleSet("one", (Default("one:do", "!"),), file)
    policy = Policy([one, RuleSet("two", (Default("two:do", "!"),))], clock=Hands())
    assert not policy.allows(ADMIN, "two:do")


def test_a_rule_is_declared_once_a_service() -> None:
    with pytest.raises(ValueError, match="same name"):
        Policy([RuleSet("x", (Default("a", "@"), Default("a", "!")))], clock=Hands())


# ---- the compute rules ------------------------------------------------------------------------------------


def context(*roles: str, project: str = "p", user: str = "u", system: bool = False) -> RequestContext:
    return RequestContext(request_id="req-1", user_id=user, project_id=project, roles=roles, system=system)


FULL = Policy([RuleSet("compute", compute.DEFAULTS)], clock=Hands())
MINE = {"project_id": "p", "user_id": "u"}


@pytest.mark.parametrize(
    ("rule", "reader", "member", "manager", "admin", "stranger"),
    [
        ("os_compute_api:servers:index", True, True, True, True, False),
        ("os_compute_api:servers:create", False, True, True, True, False),
        ("os_compute_api:servers:create:forced_host", False, False, False, True, False),
        ("os_compute_api:servers:detail:get_all_tenants", False, False, False, True, False),
        ("os_compute_api:os-migrate-server:migrate_live", False, False, True, True, False),
        ("os_compute_api:os-migrate-server:migrate_live:host", False, False, False, True, False),
        ("os_compute_api:os-console-output", False, True, True, True, False),
        ("os_compute_api:os-flavor-manage:create", False, False, False, True, False),
        ("os_compute_api:os-hypervisors:list", False, False, False, True, False),
        ("os_compute_api:os-availability-zone:list", True, True, True, True, True),
        ("os_compute_api:limits", True, True, True, True, True),
        ("os_compute_api:os-keypairs:create", True, True, True, True, False),
        ("os_compute_api:os-instance-actions:events", False, False, False, True, False),
        ("os_compute_api:os-server-shares:create", False, True, True, False, False),
        ("compute:servers:resize:cross_cell", False, False, False, False, False),
    ],
)
def test_who_may_do_what_in_compute(
    rule: str, reader: bool, member: bool, manager: bool, admin: bool, stranger: bool
) -> None:
    callers = [
        context("reader"),
        context("member", "reader"),
        context("manager", "member", "reader"),
        context("admin", project="admins", user="root"),
        context("member", "reader", project="elsewhere", user="other"),
    ]
    assert [FULL.allows(caller, rule, MINE) for caller in callers] == [reader, member, manager, admin, stranger]


def test_a_token_for_the_whole_system_does_for_nothing_in_compute() -> None:
    caller = context("admin", project="", system=True)
    assert not any(FULL.allows(caller, default.name, MINE) for default in compute.DEFAULTS if default.scopes)


def test_every_rule_refers_to_rules_that_exist() -> None:
    names = {default.name for default in compute.DEFAULTS}
    used = {word for d in compute.DEFAULTS for word in d.check.replace("(", " ").replace(")", " ").split()}
    assert {word.removeprefix("rule:") for word in used if word.startswith("rule:")} <= names


# ---- as the use cases ask ---------------------------------------------------------------------------------


def test_a_refusal_names_the_rule() -> None:
    policy = CloudPolicy(FULL)
    policy.authorize(context("member"), "os_compute_api:servers:create", MINE)
    with pytest.raises(PolicyDenied) as caught:
        policy.authorize(context("reader"), "os_compute_api:servers:create", MINE)
    assert caught.value.message == "Policy doesn't allow os_compute_api:servers:create to be performed."


def test_every_services_rules_are_loaded_with_the_operators_files(tmp_path: Path) -> None:
    (tmp_path / "compute.yaml").write_text("os_compute_api:servers:create: role:builder")
    policy = CloudPolicy.load(PolicyOptions(policy_dir=str(tmp_path)), clock=Hands())
    assert policy.allows(context("builder"), "os_compute_api:servers:create", MINE)
    assert CloudPolicy.load(PolicyOptions(), clock=Hands()).rules.knows("os_compute_api:servers:create")
