"""The network agent's own business: the order of commands, and what the conductor says."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.support.network_plans import a_network_plan, a_port_plan

from kilonova.base.clock import SystemClock
from kilonova.base.metrics import new_registry
from kilonova.model.errors import DeadlinePassed, NetworkFailed, StaleEpoch
from kilonova.model.network_plans import HostNetworks
from kilonova.network import agent as agent_module
from kilonova.network.agent import NetworkAgent
from kilonova.network.fake import FakeNetworks
from kilonova.network.options import NetworkAgentOptions

BLUE = a_network_plan("blue")
ONE, TWO = a_port_plan(BLUE, "one", 10), a_port_plan(BLUE, "two", 11)


class Conductor:
    """Says what belongs on the host, when it is let."""

    def __init__(self) -> None:
        self.wanted = HostNetworks()
        self.error: Exception | None = None
        self.asked = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def networks_of(self, host: str) -> HostNetworks:
        wanted = self.wanted
        self.asked.set()
        await self.may_answer.wait()
        if self.error is not None:
            raise self.error
        return wanted


def agent_of(conductor: Any, **options: Any) -> NetworkAgent:
    return NetworkAgent(
        "host", Path("/nonexistent"), conductor, NetworkAgentOptions(**options), SystemClock(), new_registry(),
        table="kilonova_test", api_url="http://127.0.0.1:1", secret="s", driver=FakeNetworks(),
    )  # fmt: skip


def servers(agent: NetworkAgent) -> set[str]:
    return {port.server_id for port in agent.driver.carried().ports}


async def test_an_older_command_is_refused() -> None:
    agent = agent_of(Conductor())
    await agent.plug(ONE.server_id, [BLUE], [ONE], epoch=5)
    await agent.unplug(ONE.server_id, epoch=6)
    with pytest.raises(StaleEpoch):
        await agent.plug(ONE.server_id, [BLUE], [ONE], epoch=5)
    assert servers(agent) == set()


async def test_on_start_and_by_timer_it_does_as_the_conductor_says() -> None:
    conductor = Conductor()
    conductor.wanted = HostNetworks(networks=(BLUE,), ports=(ONE,))
    agent = agent_of(conductor, reconcile_interval=0.01)
    await agent.start()
    assert servers(agent) == {ONE.server_id}
    conductor.wanted = HostNetworks(networks=(BLUE,), ports=(TWO,))
    async with asyncio.timeout(2):
        while servers(agent) != {TWO.server_id}:
            await asyncio.sleep(0.005)
    await agent.close()


async def test_a_conductor_that_is_away_stops_nobody() -> None:
    conductor = Conductor()
    conductor.error = DeadlinePassed(method="networks_of", target="conductor", deadline_s=60)
    agent = agent_of(conductor)
    await agent.start()
    await agent.plug(ONE.server_id, [BLUE], [ONE], epoch=1)
    assert servers(agent) == {ONE.server_id}
    await agent.close()


async def test_an_answer_older_than_a_command_does_not_undo_it() -> None:
    conductor = Conductor()
    conductor.wanted = HostNetworks(networks=(BLUE,), ports=(TWO,))
    agent = agent_of(conductor)
    await agent.plug(TWO.server_id, [BLUE], [TWO], epoch=1)
    conductor.may_answer.clear()
    comparing = asyncio.create_task(agent.refresh())
    await conductor.asked.wait()
    await agent.plug(ONE.server_id, [BLUE], [ONE], epoch=1)
    await agent.unplug(TWO.server_id, epoch=2)
    conductor.may_answer.set()
    await comparing
    assert servers(agent) == {ONE.server_id}
    conductor.wanted = HostNetworks()
    await agent.refresh()  # asked after both commands: this answer counts
    assert servers(agent) == set()


async def test_what_a_command_took_away_no_answer_brings_back() -> None:
    """The conductor names the port until the task that unplugged it has written that down."""
    conductor = Conductor()
    conductor.wanted = HostNetworks(networks=(BLUE,), ports=(ONE, TWO))
    agent = agent_of(conductor)
    await agent.refresh()
    await agent.unplug(ONE.server_id, epoch=2)
    await agent.refresh()
    assert servers(agent) == {TWO.server_id}
    await agent.plug(ONE.server_id, [BLUE], [ONE], epoch=3)
    await agent.refresh()
    assert servers(agent) == {ONE.server_id, TWO.server_id}


async def test_a_server_that_was_unplugged_and_written_down_may_be_named_again() -> None:
    conductor = Conductor()
    agent = agent_of(conductor)
    await agent.unplug(ONE.server_id, epoch=2)
    await agent.refresh()
    conductor.wanted = HostNetworks(networks=(BLUE,), ports=(ONE,))
    await agent.refresh()
    assert servers(agent) == {ONE.server_id}


async def test_a_port_that_could_not_be_unplugged_is_removed_by_the_next_comparison() -> None:
    conductor = Conductor()
    conductor.wanted = HostNetworks(networks=(BLUE,), ports=(ONE,))
    agent = agent_of(conductor)
    await agent.refresh()

    async def refuse(server_id: str) -> None:
        raise NetworkFailed("A tool refused.")

    agent.driver.unplug = refuse  # type: ignore[method-assign]
    with pytest.raises(NetworkFailed):
        await agent.unplug(ONE.server_id, epoch=2)
    await agent.refresh()
    assert servers(agent) == set()


async def test_a_conductor_that_names_unplugged_ports_for_long_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_module, "_BELIEVED_AFTER_S", 0.0)
    conductor = Conductor()
    conductor.wanted = HostNetworks(networks=(BLUE,), ports=(ONE,))
    agent = agent_of(conductor)
    await agent.unplug(ONE.server_id, epoch=2)
    await agent.refresh()
    assert servers(agent) == {ONE.server_id}
