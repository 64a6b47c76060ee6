"""The memory for messages that come twice."""

import asyncio

from kilonova.rpc.duplicates import Handled, Verdict


def test_a_message_is_new_then_under_way_then_done() -> None:
    handled = Handled(10)
    assert handled.begin("m") is Verdict.NEW
    assert handled.begin("m") is Verdict.UNDER_WAY
    handled.finish("m", b"answer")
    assert handled.begin("m") is Verdict.DONE
    assert handled.reply_of("m") == b"answer"


def test_given_up_is_new_again() -> None:
    handled = Handled(10)
    handled.begin("m")
    handled.give_up("m")
    assert handled.begin("m") is Verdict.NEW


def test_the_oldest_is_forgotten_first() -> None:
    handled = Handled(3)
    for n in range(5):
        handled.begin(str(n))
        handled.finish(str(n), b"r")
    assert [n for n in range(5) if handled.begin(str(n)) is Verdict.DONE] == [2, 3, 4]


def test_replies_are_bounded_by_bytes_but_ids_are_kept() -> None:
    handled = Handled(1000, max_reply_bytes=6400)
    for n in range(500):
        handled.begin(str(n))
        handled.finish(str(n), b"x" * 64)
    assert all(handled.begin(str(n)) is Verdict.DONE for n in range(500))
    assert [n for n in range(500) if handled.reply_of(str(n))] == list(range(400, 500))


def test_a_huge_reply_is_not_kept() -> None:
    handled = Handled(10, max_reply_bytes=6400)
    handled.begin("m")
    handled.finish("m", b"x" * 101)
    assert handled.begin("m") is Verdict.DONE
    assert handled.reply_of("m") is None


def test_bounds_hold_over_a_long_life() -> None:
    handled = Handled(100, max_reply_bytes=64_000)
    for n in range(10_000):
        handled.begin(str(n))
        handled.finish(str(n), b"x" * (n % 1000))
    assert len(handled._done) == 100
    assert len(handled._with_reply) <= 200
    assert handled._reply_bytes == sum(len(reply) for reply in handled._done.values() if reply)


async def test_waiting_for_the_one_under_way() -> None:
    handled = Handled(10)
    await handled.settled("unknown")
    handled.begin("m")
    waits = [asyncio.create_task(handled.settled("m")) for _ in range(2)]
    await asyncio.sleep(0)
    assert not any(wait.done() for wait in waits)
    handled.finish("m", None)
    await asyncio.gather(*waits)
    await handled.settled("m")
