"""The commands' small client, against a server that answers as a cloud does."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from kilonova.cli.rest import Rest, RestError


class Cloud(ThreadingHTTPServer):
    """Just enough of a cloud: tokens, a catalogue with unversioned and versioned endpoints, errors of each form."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.logins = 0
        self.seen: list[tuple[str, str, str]] = []


class Handler(BaseHTTPRequestHandler):
    server: Cloud

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/identity/v3/auth/tokens":
            if body["auth"]["identity"]["password"]["user"]["password"] != "right":
                return self.answer(401, {"error": {"code": 401, "message": "Wrong name or password."}})
            self.server.logins += 1
            services = {"compute": "/compute/v2.1", "image": "/image", "network": "/network/v2.0/"}
            catalog = [
                {"type": kind, "endpoints": [{"interface": "public", "url": self.server.url + path}]}
                for kind, path in services.items()
            ]
            headers = {"X-Subject-Token": f"token-{self.server.logins}"}
            return self.answer(201, {"token": {"catalog": catalog, "project": {"id": "p1"}}}, headers)
        return self.answer(409, {"conflictingRequest": {"code": 409, "message": "Is there."}})

    def do_GET(self) -> None:
        token = self.headers["X-Auth-Token"]
        self.server.seen.append((self.path, token, self.headers["OpenStack-API-Version"]))
        if self.path.startswith("/compute/v2.1/stale") and token == "token-1":
            return self.answer(401, {"error": {"message": "The token has expired."}})
        if self.path == "/image/v2/images":
            return self.answer(200, {"images": []})
        if self.path == "/network/v2.0/networks":
            return self.answer(404, {"NeutronError": {"type": "X", "message": "No network.", "detail": ""}})
        return self.answer(200, {"fine": True})

    def answer(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        given = {"Content-Type": "application/json", "Content-Length": str(len(content))}
        for name, value in (given | {"x-openstack-request-id": "req-1"} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    with Cloud() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def auth(cloud: Cloud, password: str = "right") -> dict[str, str]:
    return {
        "auth_url": f"{cloud.url}/identity",
        "username": "admin",
        "password": password,
        "project_name": "admin",
        "user_domain_name": "Default",
        "project_domain_id": "default",
    }


async def test_endpoints_come_from_the_catalogue_with_their_version(cloud: Cloud) -> None:
    async with await Rest.login(auth(cloud)) as rest:
        assert rest.endpoints["compute"] == f"{cloud.url}/compute/v2.1"
        assert await rest.ask("image", "GET", "/images") == {"images": []}
    assert cloud.seen == [("/image/v2/images", "token-1", "compute 2.37")]


async def test_an_expired_token_is_renewed(cloud: Cloud) -> None:
    async with await Rest.login(auth(cloud)) as rest:
        assert await rest.ask("compute", "GET", "/stale") == {"fine": True}
    assert cloud.logins == 2


async def test_an_error_says_what_the_service_said(cloud: Cloud) -> None:
    async with await Rest.login(auth(cloud)) as rest:
        with pytest.raises(RestError, match=r"404 No network\.") as no_network:
            await rest.ask("network", "GET", "/networks")
        with pytest.raises(RestError, match=r"409 Is there\."):
            await rest.ask("compute", "POST", "/os-keypairs", json={})
    assert (no_network.value.status, no_network.value.request_id) == (404, "req-1")
    with pytest.raises(RestError, match="Wrong name or password"):
        await Rest.login(auth(cloud, "wrong"))


async def test_a_cloud_that_is_not_there_is_an_error_of_its_own(cloud: Cloud) -> None:
    nobody = auth(cloud) | {"auth_url": "http://127.0.0.1:9/identity"}
    with pytest.raises(RestError, match="no answer"):
        await Rest.login(nobody)
