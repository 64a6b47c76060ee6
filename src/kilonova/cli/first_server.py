"""The first server: everything it needs, made through the API, and the proof that it answers."""

import contextlib
import json
import re
from typing import Any, Final

from kilonova.base.clock import Clock
from kilonova.cli import first_needs as needs
from kilonova.cli.first_needs import ImageFile, Made
from kilonova.cli.guest_login import Login
from kilonova.cli.progress import Progress, Step
from kilonova.cli.rest import Rest, RestError

_BOOT_S: Final = 240.0
_ANSWER_S: Final = 300.0
"""An emulated guest on a busy machine needs its time."""

_METADATA: Final = "timeout 10 wget -q -O - http://169.254.169.254/openstack/latest/meta_data.json"


class BootFailedError(Exception):
    """The server did not come up, or does not answer; the message says what was seen and what to do."""

    def __init__(self, message: str, *, request_id: str = "") -> None:
        super().__init__(message)
        self.request_id = request_id


class FirstServer:
    """One server and what it stands on."""

    def __init__(self, rest: Rest, progress: Progress, clock: Clock, login: Login, made: Made) -> None:
        self.name = ""
        self.id = ""
        self.address = ""
        self.request_id = ""
        self.login = login
        self._rest = rest
        self._progress = progress
        self._clock = clock
        self._made = made

    async def boot(self, image: ImageFile, *, name: str) -> None:
        """Everything, step by step; returns when ssh and the metadata service have answered.

        Raises:
            BootFailedError, RestError
        """
        self.name = name
        with self._progress.step("hypervisor") as step:
            await self._hypervisor(step)
        with self._progress.step("image") as step:
            image_id = await needs.image(self._rest, step, image, self._made)
        with self._progress.step("flavors") as step:
            flavor_id = await needs.flavors(self._rest, step, self._made)
        with self._progress.step("key pair") as step:
            await needs.key_pair(self._rest, step, self.login.public_key(), self._made)
        with self._progress.step("security group") as step:
            group_id = await needs.security_group(self._rest, step, self._made)
        with self._progress.step("server ACTIVE") as step:
            await self._server(step, image_id, flavor_id)
            await self._let_in(group_id)
        with self._progress.step("ssh answers") as step:
            await self._until_ssh(step)
        with self._progress.step("metadata answers in the guest") as step:
            await self._metadata(step)

    async def _hypervisor(self, step: Step) -> None:
        end = self._clock.monotonic() + 60
        while not (found := (await self._rest.ask("compute", "GET", "/os-hypervisors/detail"))["hypervisors"]):
            step.say("waiting for the host to report")
            if self._clock.monotonic() > end:
                raise BootFailedError("no host has reported within a minute. See compute.log among the logs.")
            await self._clock.sleep(0.2)
        kind = str(found[0].get("hypervisor_type", ""))
        step.say(f"{kind} on {found[0].get('hypervisor_hostname', '?')}")
        if kind.lower() == "fake":
            raise BootFailedError(
                "this cloud has simulated guests only, since libvirt is not usable here; nobody could log in to one. "
                "Run: make packages setup, as root"
            )

    async def _server(self, step: Step, image_id: str, flavor_id: str) -> None:
        found = await self._rest.find("compute", f"/servers/detail?name=%5E{self.name}%24", "servers", self.name)
        if found is not None and found["status"] == "ERROR":
            step.say("there is one in ERROR: making it anew")
            await self._delete(str(found["id"]))
            found = None
        if found is None:
            server = {
                "name": self.name,
                "imageRef": image_id,
                "flavorRef": flavor_id,
                "key_name": needs.KEY,
                "networks": "auto",
                "security_groups": [{"name": needs.GROUP}],
            }
            answer = await self._rest.send(
                "POST", f"{self._rest.endpoints['compute']}/servers", json={"server": server}
            )
            self.request_id = answer.headers.get("x-openstack-request-id", "")
            self.id = answer.json()["server"]["id"]
            self._made.add("compute", f"/servers/{self.id}", f"server {self.name}")
        else:
            self.id = str(found["id"])
            if found["status"] == "SHUTOFF":
                await self._rest.ask("compute", "POST", f"/servers/{self.id}/action", json={"os-start": None})
        view = await self._until_active(step)
        self.address = _address(view)
        if not self.address:
            raise BootFailedError(f"server {self.name} is ACTIVE but has no address: {view.get('addresses')}")
        host = view.get("OS-EXT-SRV-ATTR:host") or "its host"
        step.say(f"{self.name} at {self.address} on {host}{'' if found is None else ', it was there'}")

    async def _let_in(self, group_id: str) -> None:
        """See to it that the server is in the group, if it was there before."""
        for port in (await self._rest.ask("network", "GET", f"/ports?device_id={self.id}"))["ports"]:
            if group_id not in port["security_groups"]:
                groups = {"port": {"security_groups": [*port["security_groups"], group_id]}}
                await self._rest.ask("network", "PUT", f"/ports/{port['id']}", json=groups)

    async def _until_active(self, step: Step) -> dict[str, Any]:
        end = self._clock.monotonic() + _BOOT_S
        while True:
            view: dict[str, Any] = (await self._rest.ask("compute", "GET", f"/servers/{self.id}"))["server"]
            status, task = view["status"], view.get("OS-EXT-STS:task_state")
            step.say(f"{status} {task or ''}")
            if status == "ACTIVE" and task is None:
                return view
            if status == "ERROR":
                raise BootFailedError(
                    f"server {self.name} is in ERROR: {view.get('fault', {}).get('message', 'no fault is told')}. "
                    f"Where it might have gone: kilonova explain {self.id}",
                    request_id=self.request_id,
                )
            if self._clock.monotonic() > end:
                raise BootFailedError(
                    f"server {self.name} is still {status} ({task}) after {_BOOT_S:.0f} s.", request_id=self.request_id
                )
            await self._clock.sleep(0.2)

    async def _until_ssh(self, step: Step) -> None:
        end = self._clock.monotonic() + _ANSWER_S
        said = ""
        while True:
            status, said = await self.login.run(self.address, "cat /etc/os-release; cut -d' ' -f1 /proc/uptime")
            if status == 0:
                break
            if self._clock.monotonic() > end:
                raise BootFailedError(
                    f"nobody answers ssh at {self.address} after {_ANSWER_S:.0f} s; ssh says: {said.strip()[-200:]}. "
                    f"The end of its console:\n{(await self._console())[-1500:]}",
                    request_id=self.request_id,
                )
            words = re.findall(r"KILONOVA-GUEST (.*)", await self._console())
            step.say(f"the guest says: {words[-1].strip()}" if words else "the guest boots")
            await self._clock.sleep(0.3)
        name = re.search(r'PRETTY_NAME="(.*)"', said)
        step.say(f"{name[1] if name else 'a guest'}, {said.split()[-1]} s after its start")

    async def _metadata(self, step: Step) -> None:
        end = self._clock.monotonic() + 60
        while True:
            status, said = await self.login.run(self.address, _METADATA)
            with contextlib.suppress(ValueError):
                if status == 0 and (found := json.loads(said)).get("uuid") == self.id:
                    step.say(f"instance {found['uuid']}, {len(found.get('public_keys') or {})} key")
                    return
            step.say("no right answer yet")
            if self._clock.monotonic() > end:
                raise BootFailedError(
                    f"http://169.254.169.254 does not answer in the guest as it should: {said.strip()[-300:]}. "
                    "See network.log among the logs.",
                    request_id=self.request_id,
                )
            await self._clock.sleep(0.5)

    async def in_one_line(self) -> str:
        """How the server is, for a status line."""
        try:
            view = (await self._rest.ask("compute", "GET", f"/servers/{self.id}"))["server"]
        except RestError as problem:
            return str(problem)
        return f"server {self.name} {view['status']} at {self.address}"

    async def remove_made(self, step: Step) -> None:
        """Delete what this run made, the last first; a server is waited for."""
        for service, path, name in reversed(self._made.resources):
            step.say(name)
            if path.startswith("/servers/"):
                await self._delete(path.removeprefix("/servers/"))
            else:
                with contextlib.suppress(RestError):
                    await self._rest.ask(service, "DELETE", path)
        step.say(", ".join(name for _, _, name in reversed(self._made.resources)) or "nothing had been made")
        self._made.resources.clear()

    async def _delete(self, server_id: str) -> None:
        end = self._clock.monotonic() + 120
        try:
            await self._rest.ask("compute", "DELETE", f"/servers/{server_id}")
            while self._clock.monotonic() < end:
                await self._rest.ask("compute", "GET", f"/servers/{server_id}")
                await self._clock.sleep(0.2)
        except RestError as answer:
            if answer.status == 404:
                return
            raise
        raise BootFailedError(f"server {server_id} is not gone two minutes after it was deleted.")

    async def _console(self) -> str:
        with contextlib.suppress(RestError):
            body = {"os-getConsoleOutput": {"length": 60}}
            return str((await self._rest.ask("compute", "POST", f"/servers/{self.id}/action", json=body))["output"])
        return ""


def _address(view: dict[str, Any]) -> str:
    """The server's first IPv4 address."""
    for cards in view.get("addresses", {}).values():
        for card in cards:
            if card.get("version") == 4:
                return str(card["addr"])
    return ""
