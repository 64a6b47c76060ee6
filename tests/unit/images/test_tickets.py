"""Tickets open one image until they expire, and nothing else."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kilonova.images.tickets import Tickets

IMAGE = "11111111-2222-4333-8444-555555555555"
NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
TICKETS = Tickets("secret")
GOOD = TICKETS.sign(IMAGE, NOW + timedelta(seconds=30))


def test_a_ticket_is_good_until_it_expires() -> None:
    assert TICKETS.verify(IMAGE, GOOD, now=NOW)
    assert TICKETS.verify(IMAGE, GOOD, now=NOW + timedelta(seconds=29))
    assert not TICKETS.verify(IMAGE, GOOD, now=NOW + timedelta(seconds=30))


def test_it_is_for_one_image_and_one_secret() -> None:
    assert not TICKETS.verify(IMAGE.replace("1", "2"), GOOD, now=NOW)
    assert not Tickets("other").verify(IMAGE, GOOD, now=NOW)


def test_its_end_cannot_be_moved() -> None:
    later = str(int((NOW + timedelta(days=1)).timestamp()))
    assert not TICKETS.verify(IMAGE, f"{later}.{GOOD.partition('.')[2]}", now=NOW)


@given(st.text(max_size=120))
def test_nothing_else_is_a_ticket(text: str) -> None:
    assert not TICKETS.verify(IMAGE, text, now=NOW)


@given(st.integers(0, len(GOOD) - 1), st.characters())
def test_no_other_text_is_as_good(at: int, character: str) -> None:
    changed = GOOD[:at] + character + GOOD[at + 1 :]
    assert TICKETS.verify(IMAGE, changed, now=NOW) == (changed == GOOD)


def test_without_a_secret_there_are_none() -> None:
    with pytest.raises(ValueError, match="secret"):
        Tickets("")
