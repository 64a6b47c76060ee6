"""The real network drivers under the contract of all, in a namespace of their own."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from network_contract import NetworkDriverContract
from tests.support.namespaces import host_namespace, sh, tools_missing

from kilonova.base.clock import SystemClock
from kilonova.network.driver import NetworkDriver
from kilonova.network.flat import Flat
from kilonova.network.flat_dhcp import FlatDHCP
from kilonova.network.options import NetworkAgentOptions

pytestmark = [pytest.mark.real, pytest.mark.skipif(bool(tools_missing()), reason=tools_missing())]


@pytest.fixture
def namespace() -> Iterator[None]:
    with host_namespace():
        yield


class TestFlat(NetworkDriverContract):
    @pytest.fixture
    async def driver(self, namespace: None, tmp_path: Path) -> AsyncIterator[NetworkDriver]:
        driver = Flat(tmp_path, mark="kilonova_flat", metadata=None, options=NetworkAgentOptions())
        yield driver
        await driver.close(remove=True)
        assert "kb" not in sh("ip", "-o", "link")


class TestFlatDHCP(NetworkDriverContract):
    @pytest.fixture
    async def driver(self, namespace: None, tmp_path: Path) -> AsyncIterator[NetworkDriver]:
        options = NetworkAgentOptions()
        driver = FlatDHCP(tmp_path, mark="kilonova_dhcp", metadata=None, options=options, clock=SystemClock())
        yield driver
        await driver.close(remove=True)
        assert "kb" not in sh("ip", "-o", "link")
        assert not any(tmp_path.iterdir())  # noqa: ASYNC240 - a test
