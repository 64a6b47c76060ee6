"""Two versions of the cloud on one queue: each takes what the other sends. And: no shape changes unnoticed."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar, Protocol

import msgspec
import pytest

from kilonova.base.clock import SystemClock
from kilonova.base.ids import SystemIds
from kilonova.model.errors import GuestRejected, NetworkFailed, NotSupported, Unavailable, UnsupportedVersion
from kilonova.model.guest import (
    CellPlan,
    GuestFile,
    GuestRecord,
    GuestSpec,
    GuestState,
    ImageRef,
    Nic,
    PowerObservation,
)
from kilonova.model.host import HostReport
from kilonova.model.network_plans import GroupMembers, HostNetworks, NetworkPlan, PortPlan, RulePlan, SubnetPlan
from kilonova.model.request_spec import (
    Candidate,
    Choice,
    Explanation,
    PciRequest,
    RequestSpec,
    ServerGroup,
    WhatIf,
)
from kilonova.rpc.client import RpcClient
from kilonova.rpc.server import RpcServer
from kilonova.rpc.transports.memory import MemoryTransport
from kilonova.rpcapi.compute import ComputeClient
from kilonova.rpcapi.network import NetworkAPI, NetworkClient
from kilonova.rpcapi.scheduler import SchedulerAPI

WIRE = Path(__file__).parents[2] / "fixtures" / "wire"


def fixture(name: str) -> Any:
    return json.loads((WIRE / name).read_text())


OLD_FIELDS = set(fixture("compute/1.0/spawn.json")["guest"])
MIDDLE_FIELDS = set(fixture("compute/1.1/spawn.json")["guest"])
LATER_FIELDS = set(fixture("compute/1.2/spawn.json")["guest"])


class OldAgentAPI(Protocol):
    """An agent of version 1.0: what it has no field for, it refuses."""

    topic: ClassVar[str] = "compute"
    version: ClassVar[str] = "1.0"

    async def spawn(self, guest: dict[str, Any], *, epoch: int) -> None: ...


class MiddleAgentAPI(Protocol):
    topic: ClassVar[str] = "compute"
    version: ClassVar[str] = "1.1"

    async def spawn(self, guest: dict[str, Any], *, epoch: int) -> None: ...


class LaterAgentAPI(Protocol):
    topic: ClassVar[str] = "compute"
    version: ClassVar[str] = "1.2"

    async def spawn(self, guest: dict[str, Any], *, epoch: int) -> None: ...


class NewAgentAPI(Protocol):
    topic: ClassVar[str] = "compute"
    version: ClassVar[str] = "1.3"

    async def spawn(self, guest: GuestSpec, *, epoch: int) -> None: ...


class Agent:
    def __init__(self, known: set[str] = OLD_FIELDS) -> None:
        self.got: list[Any] = []
        self.known = known

    async def spawn(self, guest: Any, *, epoch: int) -> None:
        assert not isinstance(guest, dict) or not set(guest) - self.known, "fields that this version does not know"
        self.got.append(guest)


@asynccontextmanager
async def talking(protocol: type, agent: object) -> AsyncIterator[RpcClient]:
    clock = SystemClock()
    transport = MemoryTransport(clock)
    await transport.open()
    client = RpcClient(transport, clock=clock, ids=SystemIds())
    await client.start()
    server = RpcServer(transport, protocol=protocol, endpoint=agent, host="h1", clock=clock)
    await server.start()
    try:
        yield client
    finally:
        await server.stop()
        await client.stop()
        await transport.close()


def new_guest() -> GuestSpec:
    return msgspec.convert(fixture("compute/1.1/spawn.json")["guest"], GuestSpec)


def newest_guest() -> GuestSpec:
    """With host CPUs and devices of its own, in place of an earlier build."""
    return msgspec.convert(fixture("compute/1.3/spawn.json")["guest"], GuestSpec)


async def test_a_new_conductor_speaks_the_old_version_to_an_old_agent() -> None:
    agent = Agent()
    async with talking(OldAgentAPI, agent) as client:
        await ComputeClient(client.target("compute", host="h1", version="1.3")).spawn(new_guest(), epoch=3)
    assert agent.got == [fixture("compute/1.0/spawn.json")["guest"]]


async def test_an_agent_in_between_is_told_what_it_knows() -> None:
    agent = Agent(MIDDLE_FIELDS)
    async with talking(MiddleAgentAPI, agent) as client:
        await ComputeClient(client.target("compute", host="h1", version="1.3")).spawn(new_guest(), epoch=3)
    assert agent.got == [fixture("compute/1.1/spawn.json")["guest"]]


@pytest.mark.parametrize("protocol", [OldAgentAPI, MiddleAgentAPI])
async def test_an_agent_that_cannot_give_cpus_of_their_own_is_not_asked_to(protocol: type) -> None:
    agent = Agent(MIDDLE_FIELDS)
    async with talking(protocol, agent) as client:
        compute = ComputeClient(client.target("compute", host="h1", version="1.3"))
        with pytest.raises(GuestRejected, match="too old"):
            await compute.spawn(msgspec.structs.replace(newest_guest(), replaces=False), epoch=3)
    assert agent.got == []


@pytest.mark.parametrize("protocol", [OldAgentAPI, MiddleAgentAPI, LaterAgentAPI])
async def test_an_agent_that_cannot_rebuild_is_not_asked_to(protocol: type) -> None:
    """It would leave the guest that is there, and the user would believe in a fresh disk."""
    agent = Agent(LATER_FIELDS)
    async with talking(protocol, agent) as client:
        compute = ComputeClient(client.target("compute", host="h1", version="1.3"))
        with pytest.raises(NotSupported, match="too old"):
            await compute.spawn(msgspec.structs.replace(new_guest(), replaces=True), epoch=3)
    assert agent.got == []


async def test_an_agent_that_does_not_answer_is_not_taken_for_an_old_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Told that it is too old, the task would end, though the same command may have reached the agent before."""
    async with talking(NewAgentAPI, Agent()) as client:
        compute = ComputeClient(client.target("compute", host="away", version="1.3"))
        monkeypatch.setattr("kilonova.rpc.client._VERSION_DEADLINE_S", 0.05)
        with pytest.raises(Unavailable):
            await compute.spawn(newest_guest(), epoch=3)


async def test_the_agent_of_yesterday_is_told_all_but_the_build() -> None:
    agent = Agent(LATER_FIELDS)
    async with talking(LaterAgentAPI, agent) as client:
        compute = ComputeClient(client.target("compute", host="h1", version="1.3"))
        await compute.spawn(msgspec.structs.replace(newest_guest(), replaces=False), epoch=3)
    assert agent.got == [fixture("compute/1.2/spawn.json")["guest"]]


async def test_a_new_conductor_tells_a_new_agent_all() -> None:
    agent = Agent()
    async with talking(NewAgentAPI, agent) as client:
        await ComputeClient(client.target("compute", host="h1", version="1.3")).spawn(newest_guest(), epoch=3)
    assert agent.got == [newest_guest()]


async def test_a_new_agent_takes_what_an_old_conductor_sends() -> None:
    agent = Agent()
    async with talking(NewAgentAPI, agent) as client:
        target = client.target("compute", host="h1", version="1.0")
        await target.call("spawn", deadline_s=5, **fixture("compute/1.0/spawn.json"))
    assert agent.got[0].flavor_name == ""
    assert agent.got[0].server_id == new_guest().server_id


async def test_an_unknown_version_is_refused_with_both_versions_named() -> None:
    async with talking(OldAgentAPI, Agent()) as client:
        with pytest.raises(UnsupportedVersion, match=r"1\.0, not 2\.0") as refused:
            await client.target("compute", host="h1", version="2.0").call("spawn", deadline_s=5)
    assert "Upgrade" in refused.value.remedy


class Listener:
    """Takes every command, as whatever its protocol says."""

    def __init__(self) -> None:
        self.got: list[dict[str, Any]] = []

    async def plug(self, server_id: str, networks: list[NetworkPlan], ports: list[PortPlan], *, epoch: int) -> None:
        self.got.append({"server_id": server_id, "networks": networks, "ports": ports, "epoch": epoch})

    async def unplug(self, server_id: str, *, epoch: int) -> None:
        raise NotImplementedError

    async def select(self, spec: RequestSpec) -> list[Choice]:
        self.got.append({"spec": spec})
        return msgspec.convert(fixture("scheduler/1.0/select-answer.json"), list[Choice])

    async def what_if(self, spec: RequestSpec, *, most: int) -> WhatIf:
        raise NotImplementedError

    async def refresh(self) -> None:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("protocol", "call"), [(NetworkAPI, "network/1.0/plug"), (SchedulerAPI, "scheduler/1.0/select")]
)
async def test_what_version_one_sent_to_agents_and_schedulers_is_still_taken(protocol: type, call: str) -> None:
    topic, version, method = call.split("/")
    sent, listener = fixture(f"{call}.json"), Listener()
    async with talking(protocol, listener) as client:
        target = client.target(topic, host="h1", version=version)
        answer = await target.call(method, deadline_s=5, **sent)
    [got] = listener.got
    # Nothing of it is lost on the way; what came later has its default.
    assert _has_all(msgspec.to_builtins(got), sent)
    if method == "select":
        assert _has_all(answer, fixture("scheduler/1.0/select-answer.json"))


def _has_all(new: Any, old: Any) -> bool:
    if isinstance(old, dict):
        return isinstance(new, dict) and all(name in new and _has_all(new[name], old[name]) for name in old)
    if isinstance(old, list):
        return len(new) == len(old) and all(map(_has_all, new, old))
    return bool(new == old)


class OldNetworkAPI(Protocol):
    """A network agent of version 1.0: what it has no field for, it refuses."""

    topic: ClassVar[str] = "network"
    version: ClassVar[str] = "1.0"

    async def plug(
        self, server_id: str, networks: list[dict[str, Any]], ports: list[dict[str, Any]], *, epoch: int
    ) -> None: ...

    async def unplug(self, server_id: str, *, epoch: int) -> None: ...


def new_ports(**changes: Any) -> list[PortPlan]:
    [port] = msgspec.convert(fixture("network/1.1/plug.json")["ports"], list[PortPlan])
    return [msgspec.structs.replace(port, **changes)]


async def test_an_old_network_agent_is_told_what_it_knows() -> None:
    listener, sent = Listener(), fixture("network/1.0/plug.json")
    networks = msgspec.convert(sent["networks"], list[NetworkPlan])
    async with talking(OldNetworkAPI, listener) as client:
        agent = NetworkClient(client.target("network", host="h1", version="1.2"))
        await agent.plug(sent["server_id"], networks, new_ports(), epoch=3)
    assert msgspec.to_builtins(listener.got) == [sent]


async def test_an_old_network_agent_that_cannot_keep_a_port_down_is_not_asked_to() -> None:
    listener = Listener()
    async with talking(OldNetworkAPI, listener) as client:
        agent = NetworkClient(client.target("network", host="h1", version="1.2"))
        with pytest.raises(NetworkFailed, match="too old"):
            await agent.plug("s", [], new_ports(admin_up=False), epoch=3)
    assert listener.got == []


class MiddleNetworkAPI(OldNetworkAPI, Protocol):
    version: ClassVar[str] = "1.1"


async def test_a_network_agent_that_knows_no_security_groups_is_told_the_rest() -> None:
    listener, sent = Listener(), fixture("network/1.1/plug.json")
    ports = new_ports(version="1.2", rules=(RulePlan(direction="ingress"),))
    async with talking(MiddleNetworkAPI, listener) as client:
        agent = NetworkClient(client.target("network", host="h1", version="1.2"))
        await agent.plug("s", [], ports, epoch=3)
    assert listener.got[0]["ports"] == sent["ports"]


async def test_a_new_network_agent_is_told_all() -> None:
    listener = Listener()
    ports = new_ports(admin_up=False, version="1.2", rules=(RulePlan(direction="ingress"),))
    async with talking(NetworkAPI, listener) as client:
        agent = NetworkClient(client.target("network", host="h1", version="1.2"))
        await agent.plug("s", [], ports, epoch=3)
    assert listener.got[0]["ports"] == ports


SHAPES = (
    *(GuestSpec, GuestFile, CellPlan, ImageRef, Nic, GuestRecord, PowerObservation, GuestState, HostReport),
    *(SubnetPlan, NetworkPlan, PortPlan, RulePlan, GroupMembers, HostNetworks),
    *(ServerGroup, PciRequest, RequestSpec, Candidate, Explanation, Choice, WhatIf),
)
"""All that is sent between services."""


@pytest.mark.parametrize("kind", SHAPES)
def test_no_shape_changes_without_a_version(kind: type[msgspec.Struct]) -> None:
    fields = {f.encode_name: str(f.type) for f in msgspec.structs.fields(kind)}
    assert fields == fixture("shapes.json")[kind.__name__], (
        f"The wire shape of {kind.__name__} changed. Other versions of the cloud read it: add fields only, with a "
        "default; raise the minor version of object and conversation; enter it in kilonova.rpcapi.wire.ADDED; "
        "keep the older form in tests/fixtures/wire; then write the new shape into tests/fixtures/wire/shapes.json."
    )
