"""The books of one host: claims, looks at the hypervisor, and what happens between them."""

import pytest

from kilonova.compute.tracker import Tracker
from kilonova.model.errors import InsufficientResources
from kilonova.model.guest import GuestSpec, GuestState
from kilonova.model.host import HostReport
from kilonova.model.states import PowerState


def a_guest(server_id: str, memory_mib: int = 1024) -> GuestSpec:
    return GuestSpec(
        server_id=server_id,
        name=server_id,
        project_id="p",
        user_id="u",
        hostname=server_id,
        vcpus=1,
        memory_mib=memory_mib,
        root_gib=1,
    )


def seen(server_id: str, memory_mib: int = 1024) -> GuestState:
    return GuestState(server_id=server_id, power_state=PowerState.RUNNING, vcpus=1, memory_mib=memory_mib, root_gib=1)


@pytest.fixture
def tracker() -> Tracker:
    made = Tracker()
    made.set_capacity(
        HostReport(
            host="h",
            hypervisor_hostname="h",
            hypervisor_type="fake",
            hypervisor_version=1,
            vcpus=4,
            memory_mib=4096,
            disk_gib=100,
        )
    )
    return made


async def test_room_is_held_while_a_guest_is_made_and_after(tracker: Tracker) -> None:
    async with tracker.claim(a_guest("a", 3000)):
        assert tracker.usage.memory_mib == 3000
        with pytest.raises(InsufficientResources, match="needs 2000 MiB of memory; 3000 of 4096"):
            async with tracker.claim(a_guest("b", 2000)):
                pass
    assert (tracker.usage.memory_mib, tracker.usage.guests) == (3000, 1)


async def test_a_claim_that_fails_leaves_all_as_it_was(tracker: Tracker) -> None:
    with pytest.raises(RuntimeError):
        async with tracker.claim(a_guest("a")):
            raise RuntimeError
    assert tracker.usage.guests == 0


async def test_a_look_does_not_erase_what_was_made_while_it_lasted(tracker: Tracker) -> None:
    began = tracker.look()
    listing: list[GuestState] = []  # of before the guest was made
    async with tracker.claim(a_guest("a")):
        pass
    tracker.observe(listing, since=began)
    assert tracker.usage.guests == 1
    tracker.observe([], since=tracker.look())  # a later look does not find it
    assert tracker.usage.guests == 0


async def test_a_look_does_not_bring_back_what_was_removed_while_it_lasted(tracker: Tracker) -> None:
    async with tracker.claim(a_guest("a")):
        pass
    began = tracker.look()
    listing = [seen("a")]
    tracker.release("a")
    tracker.observe(listing, since=began)
    assert tracker.usage.guests == 0


async def test_a_look_keeps_claims_of_guests_in_the_making(tracker: Tracker) -> None:
    async with tracker.claim(a_guest("a", 2048)):
        tracker.observe([seen("b", 512)], since=tracker.look())
        assert tracker.usage.memory_mib == 2560


async def test_guests_that_nobody_claimed_count(tracker: Tracker) -> None:
    tracker.observe([seen("left behind", 4000)], since=tracker.look())
    with pytest.raises(InsufficientResources):
        async with tracker.claim(a_guest("a")):
            pass


async def test_a_second_claim_for_the_same_guest_takes_nothing_more(tracker: Tracker) -> None:
    async with tracker.claim(a_guest("a", 4096)):
        pass
    async with tracker.claim(a_guest("a", 4096)):
        assert tracker.usage.memory_mib == 4096
