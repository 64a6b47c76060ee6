"""Agents of one version and conductors of another: the conversation in which agents report."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar, Protocol

import msgspec
import pytest
from tests.support.stores import fresh_store

from kilonova.base.clock import SystemClock
from kilonova.base.ids import SystemIds
from kilonova.conductor.endpoint import ConductorEndpoint
from kilonova.conductor.liveness import Liveness, LivenessOptions
from kilonova.model.host import Amount, HostReport
from kilonova.rpc.client import RpcClient
from kilonova.rpc.server import RpcServer
from kilonova.rpc.transports.memory import MemoryTransport
from kilonova.rpcapi.conductor import ConductorAPI, ConductorClient, HeartbeatAnswer
from kilonova.store.queries import hosts, services

WIRE = Path(__file__).parents[2] / "fixtures" / "wire" / "conductor" / "1.0"
CLOCK = SystemClock()
IDS = SystemIds()


def fixture(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((WIRE / f"{name}.json").read_text())
    return found


class OldConductorAPI(Protocol):
    """A conductor of version 1.0, which refuses what it has no field for."""

    topic: ClassVar[str] = "conductor"
    version: ClassVar[str] = "1.0"

    async def report_host(self, report: dict[str, Any], *, agent_id: str) -> None: ...

    async def heartbeat(self, service: str, host: str, *, agent_id: str) -> HeartbeatAnswer: ...


class OldConductor:
    def __init__(self) -> None:
        self.reports: list[dict[str, Any]] = []

    async def report_host(self, report: dict[str, Any], *, agent_id: str) -> None:
        assert set(report) <= set(fixture("report_host")["report"]), "fields that 1.0 does not know"
        self.reports.append(report)

    async def heartbeat(self, service: str, host: str, *, agent_id: str) -> HeartbeatAnswer:
        return HeartbeatAnswer(known=True)


@asynccontextmanager
async def talking(protocol: type, endpoint: object) -> AsyncIterator[RpcClient]:
    transport = MemoryTransport(CLOCK)
    await transport.open()
    client = RpcClient(transport, clock=CLOCK, ids=IDS)
    await client.start()
    server = RpcServer(transport, protocol=protocol, endpoint=endpoint, host="c", clock=CLOCK)
    await server.start()
    try:
        yield client
    finally:
        await server.stop()
        await client.stop()
        await transport.close()


def new_report() -> HostReport:
    plain = {**fixture("report_host")["report"], "version": "1.1"}
    return msgspec.structs.replace(
        msgspec.convert(plain, HostReport), more={"CUSTOM_X": Amount(total=3)}, metrics={"cpu.percent": 0.5}
    )


async def test_a_new_agent_reports_to_an_old_conductor_what_that_knows() -> None:
    old = OldConductor()
    async with talking(OldConductorAPI, old) as client:
        agent = ConductorClient(client.target_of(ConductorAPI))
        await agent.report_host(new_report(), agent_id="a")
        assert (await agent.heartbeat("compute", "h1", agent_id="a")).known
    [report] = old.reports
    assert report["version"] == "1.0" and report["vcpus"] == 8


@pytest.fixture
async def conductor(tmp_path: Path) -> AsyncIterator[ConductorEndpoint]:
    store = fresh_store(tmp_path)
    liveness = Liveness(store, CLOCK, IDS, LivenessOptions())
    yield ConductorEndpoint(store, CLOCK, IDS, None, liveness)  # type: ignore[arg-type] # no task is woken here
    await store.close()


async def test_a_new_conductor_takes_what_an_old_agent_sends(conductor: ConductorEndpoint) -> None:
    async with talking(ConductorAPI, conductor) as client:
        old_agent = client.target("conductor", version="1.0")
        await old_agent.call("report_host", deadline_s=5, **fixture("report_host"))
        answer = await old_agent.call("heartbeat", deadline_s=5, returns=HeartbeatAnswer, **fixture("heartbeat"))
        await old_agent.call("report_power_states", deadline_s=5, **fixture("report_power_states"))
        assert answer.known
        assert await old_agent.call("guests_of", deadline_s=5, host="h1") == []
    [host] = await conductor._store.read(hosts.changes_since, 0)
    assert (host.name, host.vcpus, host.more, host.numa) == ("h1", 8, {}, ())
    [service] = await conductor._store.read(services.list_all)
    assert service.is_up


async def test_a_new_conductor_takes_all_of_a_new_agent(conductor: ConductorEndpoint) -> None:
    async with talking(ConductorAPI, conductor) as client:
        await ConductorClient(client.target_of(ConductorAPI)).report_host(new_report(), agent_id="a" * 36)
    [host] = await conductor._store.read(hosts.changes_since, 0)
    assert host.more["CUSTOM_X"].total == 3 and host.metrics == {"cpu.percent": 0.5}
