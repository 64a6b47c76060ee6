"""A small client of a cloud's REST API, for commands that are users like any other.

It knows what ``clouds.yaml`` says and finds everything else in the service catalogue, as the standard
client does; nothing here goes around the API.
"""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final, Self, cast

import httpx
import yaml

_VERSIONS: Final = {"compute": "v2.1", "image": "v2", "network": "v2.0"}
_MICROVERSION: Final = "compute 2.37"
"""The first in which a server may ask for ``networks: auto``."""


_AUTH: Final = ("auth_url", "username", "password", "project_name")


class RestError(Exception):
    """The API said no, or nothing. The message is the API's own, with the request's id."""

    def __init__(self, message: str, *, status: int = 0, request_id: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.request_id = request_id


def credentials(clouds_yaml: Path, cloud: str = "kilonova") -> dict[str, str]:
    """The ``auth`` of one cloud in a ``clouds.yaml``.

    Raises:
        RestError: the file cannot be read, or lacks something; the message names it.
    """
    try:
        auth = yaml.safe_load(clouds_yaml.read_text())["clouds"][cloud]["auth"]
        lacking = [name for name in _AUTH if not isinstance(auth.get(name), str)]
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RestError(f"{clouds_yaml} cannot be read: {' '.join(str(error).split())}") from None
    except (LookupError, TypeError, AttributeError):
        raise RestError(f"{clouds_yaml} has no cloud '{cloud}' with 'auth' in it.") from None
    if lacking:
        raise RestError(f"{clouds_yaml}: the 'auth' of '{cloud}' has no {', '.join(lacking)}.")
    return cast(dict[str, str], auth)


class Rest:
    """A logged-in user. Use as ``async with await Rest.login(credentials(path)) as rest``."""

    def __init__(self, auth: dict[str, str]) -> None:
        self.user = auth["username"]
        self.project = auth["project_name"]
        self.project_id = ""
        self.endpoints: dict[str, str] = {}
        self._auth = auth
        self._http = httpx.AsyncClient(timeout=60)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    @classmethod
    async def login(cls, auth: dict[str, str]) -> Self:
        """Log in with `credentials`, and read the catalogue.

        Raises:
            RestError
        """
        rest = cls(auth)
        try:
            await rest._log_in()
        except BaseException:
            await rest._http.aclose()
            raise
        return rest

    async def _log_in(self) -> None:
        auth = self._auth
        url = auth["auth_url"].rstrip("/")
        url += "" if url.endswith("/v3") else "/v3"
        user = {"name": auth["username"], "password": auth["password"], "domain": _domain(auth, "user")}
        body = {
            "auth": {
                "identity": {"methods": ["password"], "password": {"user": user}},
                "scope": {"project": {"name": auth["project_name"], "domain": _domain(auth, "project")}},
            }
        }
        answer = _checked(await self._once("POST", f"{url}/auth/tokens", json=body))
        self._http.headers["X-Auth-Token"] = answer.headers["X-Subject-Token"]
        self._http.headers["OpenStack-API-Version"] = _MICROVERSION
        self.project_id = answer.json()["token"]["project"]["id"]
        for service in answer.json()["token"]["catalog"]:
            for endpoint in service["endpoints"]:
                if endpoint["interface"] == "public":
                    self.endpoints[service["type"]] = _versioned(service["type"], endpoint["url"])
        if lacking := _VERSIONS.keys() - self.endpoints.keys():
            raise RestError(f"The service catalogue names no {', '.join(sorted(lacking))}.")

    async def _once(self, method: str, url: str, **more: Any) -> httpx.Response:
        try:
            return await self._http.request(method, url, **more)
        except httpx.TransportError as error:
            raise RestError(f"{method} {url}: no answer ({error or type(error).__name__})") from error

    async def send(self, method: str, url: str, **more: Any) -> httpx.Response:
        """One request to an absolute URL.

        Raises:
            RestError: no answer, or a status of 400 and more.
        """
        answer = await self._once(method, url, **more)
        if answer.status_code == 401:  # the token has had its time: a command may run for days
            await self._log_in()
            answer = await self._once(method, url, **more)
        return _checked(answer)

    async def ask(self, service: str, method: str, path: str, **more: Any) -> Any:
        """One request to a service; the decoded answer, or None if it has no body."""
        answer = await self.send(method, self.endpoints[service] + path, **more)
        is_json = "json" in answer.headers.get("content-type", "")
        return answer.json() if answer.content and is_json else None

    async def find(self, service: str, path: str, key: str, name: str) -> dict[str, Any] | None:
        """The first of a list that has this name."""
        found = (await self.ask(service, "GET", path))[key]
        return next((dict(item) for item in found if item["name"] == name), None)

    async def upload(self, image_id: str, content: AsyncIterator[bytes]) -> None:
        """Send an image's bytes, without holding them all."""
        headers = {"Content-Type": "application/octet-stream"}
        await self.send(
            "PUT", f"{self.endpoints['image']}/images/{image_id}/file", content=content, headers=headers, timeout=600
        )


def _checked(answer: httpx.Response) -> httpx.Response:
    if answer.is_error:
        raise RestError(
            f"{answer.request.method} {answer.request.url}: {answer.status_code} {_message(answer)}",
            status=answer.status_code,
            request_id=answer.headers.get("x-openstack-request-id", ""),
        )
    return answer


def _domain(auth: dict[str, str], of: str) -> dict[str, str]:
    if domain_id := auth.get(f"{of}_domain_id"):
        return {"id": domain_id}
    return {"name": auth.get(f"{of}_domain_name", "Default")}


def _versioned(service: str, url: str) -> str:
    url = url.rstrip("/")
    version = _VERSIONS.get(service)
    return url if version is None or re.search(r"/v\d[\d.]*(/|$)", url) else f"{url}/{version}"


def _message(answer: httpx.Response) -> str:
    """What an error says, whichever service's form it has."""
    try:
        body = answer.json()
    except ValueError:
        return answer.text[:300]
    if isinstance(body, dict):
        for value in (body, *body.values()):
            if isinstance(value, dict) and isinstance(value.get("message"), str):
                return str(value["message"])
    return str(body)[:300]
