"""What the steps of conductor tasks work with."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from kilonova.model.guest import ImageRef
from kilonova.rpcapi.compute import ComputeAPI
from kilonova.rpcapi.network import NetworkAPI
from kilonova.rpcapi.scheduler import SchedulerAPI
from kilonova.store.engine import Store


@dataclass(frozen=True)
class Hands:
    """The other services, and the store for reading.

    Attributes:
        image_ref: image id to what an agent needs to fetch it; raises NotFound or ImageUnusable.
    """

    store: Store
    scheduler: SchedulerAPI
    compute: Callable[[str], ComputeAPI]
    network: Callable[[str], NetworkAPI]
    image_ref: Callable[[str], Awaitable[ImageRef]]
