"""Who may do what, arranged by an operator with the real client: groups, roles, credentials; on simulated hosts."""

import json
import subprocess
from typing import Any

import pytest
from tests.e2e.conftest import CLIENT, OpenStack
from tests.support.running import RunningCloud

pytestmark = [pytest.mark.real, pytest.mark.slow]


@pytest.fixture
def cloud(simulated_cloud: RunningCloud) -> RunningCloud:
    return simulated_cloud


def _as(cloud: RunningCloud, *words: str, **login: str) -> tuple[int, Any]:
    """A command of somebody else than the administrator: its status, and what it printed."""
    plain = {name: value for name, value in cloud.environment().items() if not name.startswith("OS_")}
    given = {"AUTH_URL": f"{cloud.url}/identity/v3", "IDENTITY_API_VERSION": "3"} | login
    environment = plain | {f"OS_{name}": value for name, value in given.items()}
    command = [str(CLIENT), *words, "-f", "json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, json.loads(done.stdout) if done.returncode == 0 else done.stderr


def _user(name: str, password: str, project: str) -> dict[str, str]:
    login = {"USERNAME": name, "PASSWORD": password, "PROJECT_NAME": project}
    return login | {"USER_DOMAIN_NAME": "Default", "PROJECT_DOMAIN_NAME": "Default"}


def test_a_group_gets_a_project(cloud: RunningCloud, openstack: OpenStack) -> None:
    openstack("project", "create", "blue", "--description", "the blue one")
    openstack("user", "create", "ann", "--password", "pw", "--email", "ann@example.org")
    group = openstack("group", "create", "crew", "--description", "who repair")
    assert (group["name"], group["description"]) == ("crew", "who repair")
    openstack("group", "add", "user", "crew", "ann", parse=False)
    assert "ann in group crew" in openstack("group", "contains", "user", "crew", "ann", parse=False)
    assert [row["Name"] for row in openstack("user", "list", "--group", "crew")] == ["ann"]
    assert [row["Name"] for row in openstack("group", "list", "--user", "ann")] == ["crew"]

    openstack("role", "add", "--group", "crew", "--project", "blue", "member", parse=False)
    openstack("role", "add", "--group", "crew", "--domain", "Default", "reader", parse=False)
    given = openstack("role", "assignment", "list", "--names", "--group", "crew")
    assert {(row["Role"], row["Group"], row["Project"], row["Domain"]) for row in given} == {
        ("member", "crew@Default", "blue@Default", ""),
        ("reader", "crew@Default", "", "Default"),
    }
    effective = openstack("role", "assignment", "list", "--names", "--effective", "--user", "ann")
    assert {(row["Role"], row["User"], row["Group"], row["Project"], row["Domain"]) for row in effective} == {
        ("member", "ann@Default", "", "blue@Default", ""),
        ("reader", "ann@Default", "", "blue@Default", ""),
        ("reader", "ann@Default", "", "", "Default"),
    }
    in_blue = openstack("role", "assignment", "list", "--effective", "--names", "--project", "blue", "--role", "member")
    assert [row["User"] for row in in_blue] == ["ann@Default"]

    ann = _user("ann", "pw", "blue")
    status, servers = _as(cloud, "server", "list", **ann)
    assert (status, servers) == (0, [])
    status, said = _as(cloud, "user", "list", **ann)
    assert status != 0
    assert "403" in said
    status, credential = _as(cloud, "application", "credential", "create", "ci", "--role", "reader", **ann)
    assert status == 0, credential
    program = {
        "AUTH_TYPE": "v3applicationcredential",
        "APPLICATION_CREDENTIAL_ID": str(credential.get("id") or credential["ID"]),
        "APPLICATION_CREDENTIAL_SECRET": str(credential.get("secret") or credential["Secret"]),
    }
    status, said = _as(cloud, "server", "list", **program)
    assert status == 0, said
    status, said = _as(cloud, "application", "credential", "create", "more", **program)
    assert status != 0
    assert "403" in said

    openstack("group", "remove", "user", "crew", "ann", parse=False)
    for login in (ann, program):
        status, said = _as(cloud, "server", "list", **login)
        assert status != 0
        assert "401" in said
    openstack("role", "remove", "--group", "crew", "--project", "blue", "member", parse=False)
    openstack("group", "set", "crew", "--name", "team", parse=False)
    assert openstack("group", "show", "team")["name"] == "team"
    openstack("group", "delete", "team", parse=False)
    assert openstack("group", "list") == []


def test_domains_and_the_system(cloud: RunningCloud, openstack: OpenStack) -> None:
    openstack("domain", "create", "acme")
    openstack("project", "create", "p", "--domain", "acme")
    openstack("user", "create", "eve", "--domain", "acme", "--password", "pw")
    openstack("role", "add", "--user", "eve", "--user-domain", "acme", "--domain", "acme", "member", parse=False)
    openstack("role", "add", "--user", "eve", "--user-domain", "acme", "--system", "all", "reader", parse=False)
    listed = openstack("role", "assignment", "list", "--names", "--user", "eve", "--user-domain", "acme")
    assert {(row["Role"], row["Domain"], row["System"]) for row in listed} == {
        ("member", "acme", ""),
        ("reader", "", "all"),
    }
    eve = {"USERNAME": "eve", "PASSWORD": "pw", "USER_DOMAIN_NAME": "acme"}
    status, token = _as(cloud, "token", "issue", DOMAIN_NAME="acme", **eve)
    assert status == 0, token
    assert token["domain_id"]
    status, users = _as(cloud, "user", "list", SYSTEM_SCOPE="all", **eve)
    assert status == 0, users
    assert {row["Name"] for row in users} == {"admin", "eve"}
    status, said = _as(cloud, "user", "create", "mallory", SYSTEM_SCOPE="all", **eve)
    assert status != 0
    assert "403" in said
    assert {row["Name"] for row in openstack("role", "list")} >= {"admin", "member", "reader"}
    implied = openstack("implied", "role", "list")
    assert ("member", "reader") in {(row["Prior Role Name"], row["Implied Role Name"]) for row in implied}
    openstack("domain", "set", "acme", "--disable", parse=False)
    assert _as(cloud, "token", "issue", DOMAIN_NAME="acme", **eve)[0] != 0
