"""What the steps of conductor tasks work with."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field

from kilonova.model.guest import ImageRef
from kilonova.model.request_spec import PciRequest
from kilonova.rpcapi.compute import ComputeAPI
from kilonova.rpcapi.network import NetworkAPI
from kilonova.rpcapi.scheduler import SchedulerAPI
from kilonova.store.engine import Store


@dataclass(frozen=True)
class Hands:
    """The other services, and the store for reading.

    Attributes:
        image_ref: image id to what an agent needs to fetch it; raises NotFound or ImageUnusable.
        networks_changed: networks on which ports came or went; hosts are told.
        pci_aliases: names that flavors have for kinds of PCI devices, as the scheduler knows them.
    """

    store: Store
    scheduler: SchedulerAPI
    compute: Callable[[str], ComputeAPI]
    network: Callable[[str], NetworkAPI]
    image_ref: Callable[[str], Awaitable[ImageRef]]
    networks_changed: Callable[[Iterable[str]], None] = lambda _: None
    pci_aliases: Mapping[str, PciRequest] = field(default_factory=dict)
