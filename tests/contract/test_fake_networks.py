"""The fake network driver under the contract of all."""

import pytest
from network_contract import NetworkDriverContract

from kilonova.network.driver import NetworkDriver
from kilonova.network.fake import FakeNetworks


class TestFakeNetworks(NetworkDriverContract):
    @pytest.fixture
    def driver(self) -> NetworkDriver:
        return FakeNetworks()
