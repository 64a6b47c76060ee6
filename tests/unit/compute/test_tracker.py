"""The books of a host: looks at the hypervisor correct them, and never undo what happened during the look."""

import pytest
from compute_rig import guest

from kilonova.compute.tracker import Tracker, Usage
from kilonova.model.guest import GuestState
from kilonova.model.states import PowerState


def seen(server_id: str) -> GuestState:
    return GuestState(server_id=server_id, power_state=PowerState.RUNNING, vcpus=1, memory_mib=512, root_gib=1)


async def test_a_claim_that_ends_during_the_look_stays() -> None:
    tracker = Tracker()
    moment = tracker.moment()
    async with tracker.claim(guest("s")):
        pass
    tracker.observe([], since=moment)  # the list was made before the guest was
    assert tracker.usage.guests == 1


async def test_a_claim_under_way_stays() -> None:
    tracker = Tracker()
    async with tracker.claim(guest("s")):
        tracker.observe([], since=tracker.moment())
        assert tracker.usage.memory_mib == 512
    assert tracker.usage.memory_mib == 512


async def test_a_guest_destroyed_during_the_look_does_not_come_back() -> None:
    tracker = Tracker()
    tracker.observe([seen("s")], since=tracker.moment())
    moment = tracker.moment()
    tracker.release("s")
    tracker.observe([seen("s")], since=moment)
    assert tracker.usage == Usage()


async def test_the_next_look_is_believed_again() -> None:
    tracker = Tracker()
    async with tracker.claim(guest("s")):
        pass
    tracker.observe([], since=tracker.moment())
    assert tracker.usage == Usage()


async def test_an_older_look_that_comes_late_is_dropped() -> None:
    tracker = Tracker()
    old = tracker.moment()
    async with tracker.claim(guest("s")):
        pass
    tracker.observe([seen("s")], since=tracker.moment())
    tracker.observe([], since=old)
    assert tracker.usage.guests == 1


async def test_a_failed_claim_gives_back_exactly_what_it_took() -> None:
    tracker = Tracker()
    tracker.observe([seen("other")], since=tracker.moment())
    before = tracker.usage
    with pytest.raises(ZeroDivisionError):
        async with tracker.claim(guest("s")):
            raise ZeroDivisionError
    assert tracker.usage == before
