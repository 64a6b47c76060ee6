"""Secrets are known by their names at any depth, and by their place in a URL."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kilonova.base.masking import is_secret, mask_urls, masked

WORDS = ("password", "adminPass", "ADMIN_PASS", "X-Auth-Token", "private_key", "user_data", "SecretAccessKey", "apikey")


@pytest.mark.parametrize("name", WORDS)
def test_secret_names(name: str) -> None:
    assert is_secret(name) and is_secret(name.upper()) and is_secret(name.lower())


@pytest.mark.parametrize("name", ["key_name", "server", "passed", "pass_count", "host", "author"])
def test_names_that_are_none(name: str) -> None:
    assert not is_secret(name)


def test_numbers_under_names_of_tokens_are_counts() -> None:
    assert masked("token_lifetime", 3600) == 3600
    assert masked("password", 1234) == "***", "a number can be a password"


@given(st.sampled_from(WORDS), st.recursive(st.just("hidden"), lambda inner: st.lists(inner) | st.tuples(inner)))
def test_nothing_below_a_secret_name_is_seen(name: str, value: object) -> None:
    assert "hidden" not in str(masked("body", {"a": [{name: value}]}))


def test_what_is_empty_or_harmless_stays() -> None:
    given_ = {"a": 1, "b": ["x", None, True], "password": "", "secret": None, 5: "five"}
    assert masked("", given_) == given_


def test_deep_and_circular_values_end() -> None:
    circle: dict[str, object] = {}
    circle["again"] = circle
    assert "***" in str(masked("", circle))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("amqp://me:hid@den@h:5672/v", "amqp://me:***@h:5672/v"),
        ("postgresql+psycopg://me:hidden@h/db?x=1", "postgresql+psycopg://me:***@h/db?x=1"),
        ("amqp://a:hid/den@h/", "amqp://a:***@h/"),
        ("cannot reach nats://a:hidden@h,nats://b:hidden@i now", "cannot reach nats://a:***@h,nats://b:***@i now"),
        ("http://h:8774/v2.1", "http://h:8774/v2.1"),
        ("sqlite:////var/lib/x", "sqlite:////var/lib/x"),
        ("amqp://me@h/", "amqp://me@h/"),
    ],
)
def test_urls(text: str, shown: str) -> None:
    assert mask_urls(text) == shown
