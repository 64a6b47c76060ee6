"""What every network driver does, whatever it stands on. A driver's test module supplies `driver`, not started."""

import asyncio

import msgspec
from tests.support.network_plans import a_network_plan, a_port_plan, an_id

from kilonova.model.network_plans import HostNetworks
from kilonova.network.driver import NetworkDriver

BLUE, RED = a_network_plan("blue"), a_network_plan("red", "10.91.8.0/24")
ONE, TWO = a_port_plan(BLUE, "one", 10), a_port_plan(BLUE, "two", 11)


def carried(driver: NetworkDriver) -> tuple[set[str], set[str]]:
    """Names of networks, ids of ports."""
    now = driver.carried()
    return {network.name for network in now.networks}, {port.nic.port_id for port in now.ports}


class NetworkDriverContract:
    """The contract of `kilonova.network.driver.NetworkDriver`."""

    async def test_plugging_twice_has_the_effect_of_once(self, driver: NetworkDriver) -> None:
        await driver.start()
        await driver.plug([BLUE], [ONE])
        await driver.plug([BLUE], [ONE])
        assert carried(driver) == ({"blue"}, {ONE.nic.port_id})
        assert driver.carried() == HostNetworks(networks=(BLUE,), ports=(ONE,))

    async def test_a_network_goes_with_its_last_port(self, driver: NetworkDriver) -> None:
        await driver.start()
        await driver.plug([BLUE], [ONE])
        await driver.plug([BLUE], [TWO])
        await driver.unplug(ONE.server_id)
        assert carried(driver) == ({"blue"}, {TWO.nic.port_id})
        await driver.unplug(TWO.server_id)
        await driver.unplug(TWO.server_id)
        assert carried(driver) == (set(), set())

    async def test_unplugging_a_stranger_is_no_error(self, driver: NetworkDriver) -> None:
        await driver.start()
        await driver.unplug(an_id("stranger"))

    async def test_one_server_on_several_networks(self, driver: NetworkDriver) -> None:
        await driver.start()
        other = a_port_plan(RED, "one", 20)
        await driver.plug([BLUE, RED], [ONE, other])
        assert carried(driver) == ({"blue", "red"}, {ONE.nic.port_id, other.nic.port_id})
        await driver.unplug(ONE.server_id)
        assert carried(driver) == (set(), set())

    async def test_a_plugged_port_takes_changes(self, driver: NetworkDriver) -> None:
        await driver.start()
        await driver.plug([BLUE], [ONE])
        changed = msgspec.structs.replace(ONE, admin_up=False)
        await driver.plug([BLUE], [changed])
        assert driver.carried().ports == (changed,)

    async def test_reconcile_makes_changes_and_removes(self, driver: NetworkDriver) -> None:
        await driver.start()
        await driver.plug([BLUE], [ONE, TWO])
        changed = msgspec.structs.replace(TWO, hostname="renamed")
        new = a_port_plan(RED, "three", 30)
        report = await driver.reconcile(HostNetworks(networks=(BLUE, RED), ports=(changed, new)))
        assert report.missing == (new.nic.port_id,)
        assert report.changed == (TWO.nic.port_id,)
        assert report.stray == (ONE.nic.port_id,)
        assert carried(driver) == ({"blue", "red"}, {TWO.nic.port_id, new.nic.port_id})
        again = await driver.reconcile(HostNetworks(networks=(BLUE, RED), ports=(changed, new)))
        assert again.is_clean

    async def test_reconcile_leaves_servers_that_it_is_told_to(self, driver: NetworkDriver) -> None:
        await driver.start()
        await driver.plug([BLUE], [ONE])
        report = await driver.reconcile(
            HostNetworks(networks=(BLUE,), ports=(TWO,)), leave={ONE.server_id, TWO.server_id}
        )
        assert report.is_clean
        assert carried(driver) == ({"blue"}, {ONE.nic.port_id})

    async def test_many_at_once(self, driver: NetworkDriver) -> None:
        await driver.start()
        ports = [a_port_plan(BLUE, f"s{number}", 50 + number) for number in range(8)]
        await asyncio.gather(*(driver.plug([BLUE], [port]) for port in ports))
        assert len(carried(driver)[1]) == 8
        await asyncio.gather(*(driver.unplug(port.server_id) for port in ports))
        assert carried(driver) == (set(), set())

    async def test_repair_of_what_is_whole_does_nothing(self, driver: NetworkDriver) -> None:
        await driver.start()
        await driver.plug([BLUE], [ONE])
        assert await driver.repair() == []

    async def test_close_keeps_unless_told_to_remove(self, driver: NetworkDriver) -> None:
        await driver.start()
        await driver.plug([BLUE], [ONE])
        await driver.close()
        assert carried(driver) == ({"blue"}, {ONE.nic.port_id})
        await driver.close(remove=True)
        assert carried(driver) == (set(), set())
