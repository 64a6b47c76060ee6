"""Two API processes of one cloud: who is out at one is out at the other, and guesses at both are counted together."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.support.brokers import RabbitMQ
from tests.support.databases import DatabaseServer
from tests.support.deployment import Deployment
from tests.support.running import Client, free_port

LIMIT = 10


@dataclass
class Two:
    """The administrator at the first process, and both processes' addresses."""

    admin: Client
    urls: tuple[str, str]

    def make(self, kind: str, **body: Any) -> str:
        made = self.admin.identity("POST", f"/{kind}s", json={kind: body}).raise_for_status()
        return str(made.json()[kind]["id"])

    def status(self, method: str, path: str, **arguments: Any) -> int:
        return self.admin.identity(method, path, **arguments).status_code

    def login(self, user_id: str, password: str, project: str = "", *, at: int = 0) -> httpx.Response:
        user = {"id": user_id, "password": password}
        auth: dict[str, Any] = {"identity": {"methods": ["password"], "password": {"user": user}}}
        if project:
            auth["scope"] = {"project": {"id": project}}
        return httpx.post(f"{self.urls[at]}/identity/v3/auth/tokens", json={"auth": auth}, timeout=60)

    def uses(self, token: str) -> list[int]:
        """The status of a request with it, at both processes."""
        paths = (f"{url}/compute/v2.1/servers" for url in self.urls)
        return [httpx.get(path, headers={"X-Auth-Token": token}, timeout=60).status_code for path in paths]


@pytest.fixture(scope="module", params=["postgresql", "mariadb"])
def two(request: pytest.FixtureRequest, rabbit: RabbitMQ, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    server: DatabaseServer = request.getfixturevalue(request.param)
    root = tmp_path_factory.mktemp("two")
    vhost = f"identity-{request.param}"
    rabbit.control("add_vhost", vhost)
    rabbit.control("set_permissions", "-p", vhost, rabbit.user, ".*", ".*", ".*")
    cloud = Deployment(root, database=server.create("two_apis"), transport=rabbit.url(vhost))
    cloud.migrate()
    second = free_port()
    cloud.start("ctl1", "api")
    cloud.start("ctl2", "api", port=second)
    yield Two(cloud.client(), (cloud.url, f"http://{cloud.address}:{second}"))
    cloud.stop()


@pytest.fixture
def member(two: Two, tmp_path: Path) -> tuple[str, str, str]:
    """Ids of a new user, a project and a role that it has there."""
    name = tmp_path.name[-60:]
    user, project = two.make("user", name=name, password="pw"), two.make("project", name=name)
    [role] = two.admin.identity("GET", "/roles?name=member").json()["roles"]
    assert two.status("PUT", f"/projects/{project}/users/{user}/roles/{role['id']}") == 204
    return user, project, role["id"]


@pytest.mark.parametrize("what", ["revoked", "disabled", "password", "role", "project", "deleted"])
def test_what_ends_at_one_ends_at_the_other_at_once(two: Two, member: tuple[str, str, str], what: str) -> None:
    user, project, role = member
    for _ in range(1 if what == "deleted" else 5):  # at once, not mostly
        token = two.login(user, "pw", project, at=1).headers["X-Subject-Token"]
        assert two.uses(token) == [200, 200]
        _end(two, what, member, token)
        assert list(reversed(two.uses(token))) == [401, 401]
        two.status("PATCH", f"/users/{user}", json={"user": {"enabled": True}})
        two.status("PATCH", f"/projects/{project}", json={"project": {"enabled": True}})
        two.status("PUT", f"/projects/{project}/users/{user}/roles/{role}")


def _end(two: Two, what: str, member: tuple[str, str, str], token: str) -> None:
    user, project, role = member
    method, path, more = {
        "revoked": ("DELETE", "/auth/tokens", {"headers": {"X-Subject-Token": token}}),
        "disabled": ("PATCH", f"/users/{user}", {"json": {"user": {"enabled": False}}}),
        "password": ("PATCH", f"/users/{user}", {"json": {"user": {"password": "pw"}}}),
        "role": ("DELETE", f"/projects/{project}/users/{user}/roles/{role}", {}),
        "project": ("PATCH", f"/projects/{project}", {"json": {"project": {"enabled": False}}}),
        "deleted": ("DELETE", f"/users/{user}", {}),
    }[what]
    assert two.status(method, path, **more) in (200, 204)


def test_guesses_at_both_are_counted_together(two: Two, member: tuple[str, str, str]) -> None:
    user, project, _ = member
    with ThreadPoolExecutor(12) as pool:
        found = Counter(pool.map(lambda n: two.login(user, "wrong", at=n % 2).status_code, range(4 * LIMIT)))
    assert found == {401: LIMIT, 429: 3 * LIMIT}
    for at in range(2):
        refused = two.login(user, "pw", project, at=at)
        assert refused.status_code == 429
        assert 1 <= int(refused.headers["Retry-After"]) <= 60
