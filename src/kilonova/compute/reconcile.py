"""Compare the hypervisor with what the conductor says belongs here; on start and by timer. Takes no input.

A guest that this cloud's driver made and that belongs here no more (its server was deleted or moved while
this host was away) is removed. A server that is at rest and whose guest is otherwise than its record says is told to
the conductor, which decides. Guests that somebody else made are never seen.
"""

from dataclasses import dataclass

from kilonova.base.log import get_logger
from kilonova.compute.tracker import Tracker
from kilonova.model.epochs import Epochs
from kilonova.model.errors import CloudError, StaleEpoch
from kilonova.model.guest import PowerObservation
from kilonova.model.states import PowerState
from kilonova.rpcapi.conductor import ConductorAPI
from kilonova.virt.driver import VirtDriver

log = get_logger(__name__)


@dataclass(frozen=True)
class Reconciled:
    """What was found: guests removed, and servers whose guest is otherwise than recorded."""

    removed: tuple[str, ...]
    different: tuple[str, ...]


async def reconcile(
    host: str, conductor: ConductorAPI, driver: VirtDriver, tracker: Tracker, epochs: Epochs
) -> Reconciled:
    """Make the hypervisor agree with the records; safe to run at any time, any number of times.

    The order of the two looks matters: a guest seen *before* the records were read was made for a claim
    committed earlier still, so if they do not name it, it does not belong here. A guest looked for *after* they
    were read, and missing, is told with the record's own time: if the server changed since, it is not believed.
    """
    before = {server_id: epochs.seen(server_id) for server_id in await driver.list_guests()}
    records = {record.server_id: record for record in await conductor.guests_of(host)}
    for record in records.values():
        epochs.learn(record.server_id, record.epoch)
    removed = [
        server_id
        for server_id, epoch in before.items()
        if server_id not in records and await _remove(driver, tracker, epochs, server_id, epoch)
    ]
    moment = tracker.moment()
    after = await driver.list_guests()
    tracker.observe(after.values(), since=moment)
    different: list[PowerObservation] = []
    for record in records.values():
        guest = after.get(record.server_id)
        power_state = guest.power_state if guest else PowerState.NOSTATE
        if record.task_state is None and power_state != record.power_state:
            different.append(PowerObservation(server_id=record.server_id, as_of=record.as_of, power_state=power_state))
    if different:
        await conductor.report_power_states(host, different)
    return Reconciled(tuple(removed), tuple(observation.server_id for observation in different))


async def _remove(driver: VirtDriver, tracker: Tracker, epochs: Epochs, server_id: str, epoch: int) -> bool:
    try:
        async with epochs.enter(server_id, epoch):
            await driver.destroy(server_id)
            tracker.release(server_id)
    except StaleEpoch:
        return False  # a command came for it meanwhile: it is wanted after all
    except CloudError as error:
        log.warning("a guest that does not belong here stays for now", server=server_id, cause=error.message)
        return False
    log.info("guest that does not belong here was removed", server=server_id)
    return True
