"""Commands for one server: in order, one at a time, never an older after a newer."""

import asyncio

import pytest

from kilonova.model.epochs import Epochs
from kilonova.model.errors import StaleEpoch


async def test_a_smaller_epoch_than_seen_is_refused() -> None:
    epochs = Epochs()
    async with epochs.enter("s", 5):
        pass
    with pytest.raises(StaleEpoch) as refused:
        async with epochs.enter("s", 4):
            pytest.fail("entered")
    assert (refused.value.epoch, refused.value.seen) == (4, 5)
    async with epochs.enter("another", 1):
        pass


async def test_what_was_learned_counts_as_seen() -> None:
    epochs = Epochs()
    epochs.learn("s", 7)
    epochs.learn("s", 3)
    with pytest.raises(StaleEpoch):
        async with epochs.enter("s", 6):
            pass
    async with epochs.enter("s", 7):
        assert epochs.seen("s") == 7


async def test_the_same_epoch_waits_its_turn() -> None:
    epochs = Epochs()
    story: list[str] = []

    async def command(name: str) -> None:
        async with epochs.enter("s", 1):
            story.append(f"{name} in")
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            story.append(f"{name} out")

    await asyncio.gather(command("a"), command("b"))
    assert story == ["a in", "a out", "b in", "b out"]


async def test_servers_do_not_wait_for_each_other() -> None:
    epochs = Epochs()
    async with epochs.enter("a", 1), asyncio.timeout(1), epochs.enter("b", 1):
        pass


async def test_a_newer_command_ends_an_older_one_and_waits_until_it_has_cleaned_up() -> None:
    epochs = Epochs()
    story: list[str] = []
    entered = asyncio.Event()

    async def older() -> None:
        async with epochs.enter("s", 1):
            entered.set()
            try:
                await asyncio.sleep(60)
            finally:
                await asyncio.sleep(0.01)
                story.append("older cleaned up")

    task = asyncio.create_task(older())
    await entered.wait()
    async with epochs.enter("s", 2):
        story.append("newer in")
    with pytest.raises(StaleEpoch):
        await task
    assert story == ["older cleaned up", "newer in"]
    assert task.cancelling() == 0


async def test_waiting_commands_that_became_old_are_refused_when_their_turn_comes() -> None:
    epochs = Epochs()
    first_in = asyncio.Event()

    async def command(epoch: int) -> int:
        async with epochs.enter("s", epoch):
            first_in.set()
            if epoch == 1:
                await asyncio.sleep(60)
            return epoch

    first = asyncio.create_task(command(1))
    await first_in.wait()
    waiting = asyncio.create_task(command(1))
    await asyncio.sleep(0)
    newest = asyncio.create_task(command(2))
    results = await asyncio.gather(first, waiting, newest, return_exceptions=True)
    assert [type(r) for r in results] == [StaleEpoch, StaleEpoch, int]


async def test_a_cancellation_from_outside_stays_one() -> None:
    epochs = Epochs()
    entered = asyncio.Event()

    async def command() -> None:
        async with epochs.enter("s", 1):
            entered.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(command())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with epochs.enter("s", 1):
        pass


async def test_an_error_of_its_own_passes_through() -> None:
    epochs = Epochs()
    with pytest.raises(ValueError, match="mine"):
        async with epochs.enter("s", 1):
            raise ValueError("mine")
    async with epochs.enter("s", 1):
        pass


async def test_memory_is_bounded_and_keeps_the_newest() -> None:
    epochs = Epochs(remembered=2)
    for name in ("a", "b", "c"):
        async with epochs.enter(name, 9):
            pass
    assert [epochs.seen(name) for name in ("a", "b", "c")] == [0, 9, 9]
