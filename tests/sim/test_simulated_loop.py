"""The simulated loop: virtual time, an order from a seed, and a kill that runs no clean-up."""

import asyncio
import random
from collections.abc import Iterator

import pytest

from kilonova.sim.loop import Life, SimulatedLoop, SimulationStuck, current_life


@pytest.fixture
def loop() -> Iterator[SimulatedLoop]:
    made = SimulatedLoop(random.Random(1))
    yield made
    made.close()


def test_time_jumps_to_the_next_timer(loop: SimulatedLoop) -> None:
    async def long() -> float:
        await asyncio.sleep(86_400)
        async with asyncio.timeout(100):
            await asyncio.sleep(99)
        return loop.time()

    assert loop.run_until_complete(long()) == 86_499


def test_a_killed_life_is_never_resumed_and_runs_no_finally(loop: SimulatedLoop) -> None:
    told: list[str] = []

    async def victim() -> None:
        try:
            told.append("began")
            child = asyncio.create_task(asyncio.sleep(5))
            await child
            told.append("went on")
        finally:
            told.append("cleaned up")

    async def main() -> None:
        life = loop.begin("victim")
        life.start(victim())
        await asyncio.sleep(1)
        loop.kill(life)
        await asyncio.sleep(10)
        assert told == ["began"]
        assert len(life.unfinished()) == 2

    loop.run_until_complete(main())


def test_a_kill_before_a_step_lets_that_step_not_happen(loop: SimulatedLoop) -> None:
    steps: list[int] = []

    async def victim() -> None:
        for number in range(10):
            steps.append(number)
            await asyncio.sleep(0)

    def strike(life: Life) -> None:
        if life.name == "victim" and life.steps == 3:
            loop.kill(life)

    async def main() -> None:
        loop.begin("victim").start(victim())
        await asyncio.sleep(1)

    loop.before_step = strike
    loop.run_until_complete(main())
    assert steps == [0, 1, 2]


def _story(seed: int) -> list[str]:
    loop = SimulatedLoop(random.Random(seed))
    told: list[str] = []

    async def speak(word: str) -> None:
        for number in range(3):
            life = current_life()
            told.append(f"{life.name if life else ''}{word}{number}")
            await asyncio.sleep(0)

    async def main() -> None:
        for name in "abc":
            life = loop.begin(name)
            life.start(speak("x"))
            life.start(speak("y"))
        await asyncio.sleep(1)

    loop.run_until_complete(main())
    loop.close()
    return told


def test_the_seed_orders_lives_and_each_life_keeps_its_own_order() -> None:
    assert _story(1) == _story(1)
    assert len({tuple(_story(seed)) for seed in range(20)}) > 10
    for seed in range(20):
        assert [word for word in _story(seed) if word[0] == "b"] == ["bx0", "by0", "bx1", "by1", "bx2", "by2"]


def test_waiting_for_nothing_is_told(loop: SimulatedLoop) -> None:
    with pytest.raises(SimulationStuck):
        loop.run_until_complete(loop.create_future())
