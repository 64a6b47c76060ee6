"""One timer for many deadlines."""

from rpc_helpers import VirtualClock, settle

from kilonova.rpc.deadlines import Deadlines


class Wanted(dict[str, None]):
    """Keys that still matter; an expired one is noted with its time and dropped."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.expired: list[tuple[str, float]] = []

    def expire(self, key: str) -> None:
        self.expired.append((key, self.clock.monotonic()))
        del self[key]


async def test_each_expires_at_its_time_in_whatever_order_they_came() -> None:
    clock = VirtualClock()
    wanted = Wanted(clock)
    deadlines = Deadlines(clock, wanted, wanted.expire)
    for key, seconds in (("c", 30.0), ("a", 10.0), ("d", 40.0), ("b", 20.0)):
        wanted[key] = None
        deadlines.add(key, seconds)
    await clock.advance(100)
    assert wanted.expired == [("a", 10.0), ("b", 20.0), ("c", 30.0), ("d", 40.0)]


async def test_answered_ones_do_not_expire() -> None:
    clock = VirtualClock()
    wanted = Wanted(clock)
    deadlines = Deadlines(clock, wanted, wanted.expire)
    for key in ("a", "b"):
        wanted[key] = None
        deadlines.add(key, 10)
    await clock.advance(5)
    del wanted["a"]
    await clock.advance(100)
    assert wanted.expired == [("b", 10.0)]


async def test_ten_thousand_deadlines_are_one_sleeper() -> None:
    clock = VirtualClock()
    wanted = Wanted(clock)
    deadlines = Deadlines(clock, wanted, wanted.expire)
    for n in range(10_000):
        wanted[str(n)] = None
        deadlines.add(str(n), 20 + n / 1000)
    await settle()
    assert clock.sleeping == 1
    await clock.advance(100)
    assert [key for key, _ in wanted.expired] == [str(n) for n in range(10_000)]
    assert clock.sleeping == 0


async def test_answered_calls_do_not_pile_up() -> None:
    clock = VirtualClock()
    wanted = Wanted(clock)
    deadlines = Deadlines(clock, wanted, wanted.expire)
    for n in range(100_000):
        key = str(n)
        wanted[key] = None
        deadlines.add(key, 600)
        del wanted[key]
    assert len(deadlines._heap) < 1000


async def test_next_deadline_after_all_passed_is_kept() -> None:
    clock = VirtualClock()
    wanted = Wanted(clock)
    deadlines = Deadlines(clock, wanted, wanted.expire)
    for start in (0.0, 50.0):
        wanted["x"] = None
        deadlines.add("x", 10)
        await clock.advance(50)
        assert wanted.expired[-1] == ("x", start + 10)


async def test_closed_nothing_expires() -> None:
    clock = VirtualClock()
    wanted = Wanted(clock)
    deadlines = Deadlines(clock, wanted, wanted.expire)
    wanted["a"] = None
    deadlines.add("a", 10)
    await settle()
    deadlines.close()
    await clock.advance(100)
    assert wanted.expired == []
    assert clock.sleeping == 0
