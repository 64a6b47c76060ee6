"""Log lines: one JSON object each, without secrets, whatever is logged and whatever becomes of the disk."""

import json
import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from kilonova.base import log
from kilonova.base.log_lines import as_json, as_text


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    before, handlers = structlog.get_config(), logging.getLogger().handlers[:]
    yield
    structlog.configure(**before)
    logging.getLogger().handlers[:] = handlers
    log.set_debug(False)


def lines(directory: Path, service: str = "kilonova") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / f"{service}.log").read_text().splitlines()]


def test_an_event_is_one_line_with_its_context(tmp_path: Path) -> None:
    log.set_up(tmp_path)
    with log.bind(service="conductor", request_id="req-1"):
        log.get_logger("kilonova.a.b").info("two\nlines", server="s1")
    [line] = lines(tmp_path, "conductor")
    assert line["event"] == "two\nlines" and line["request_id"] == "req-1" and line["module"] == "a.b"
    assert line["level"] == "info" and line["time"].endswith("Z")


def test_secrets_are_masked_at_every_depth_and_in_urls(tmp_path: Path) -> None:
    @dataclass
    class Login:
        name: str
        Password: str

    class Struct(msgspec.Struct):
        admin_pass: str

    log.set_up(tmp_path)
    logger = log.get_logger("x")
    logger.warning(
        "cannot reach amqp://me:hidden@h/",
        adminPass="hidden",
        body={"auth": [{"X-Auth-Token": "hidden"}]},
        login=Login("ann", "hidden"),
        logins=[Login("ann", "hidden")],
        struct=Struct("hidden"),
        cause=OSError("nats://a:hidden@b"),
    )
    try:
        raise ValueError("postgresql://me:hidden@h/x")
    except ValueError:
        logger.exception("failed")
    text = (tmp_path / "kilonova.log").read_text()
    assert "hidden" not in text
    assert "ann" in text and "amqp://me:***@h/" in text and "Traceback" in text


def test_debug_is_switched_while_the_process_runs(tmp_path: Path) -> None:
    log.set_up(tmp_path)
    logger = log.get_logger("x")
    logger.debug("one")
    log.set_debug(True)
    logger.debug("two")
    log.set_debug(False)
    logger.debug("three")
    logger.info("four")
    assert [line["event"] for line in lines(tmp_path)] == ["two", "four"]


class Stubborn:
    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st.builds(Stubborn)
    | st.text(st.characters(categories=["Cs"]), min_size=1),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner) | st.tuples(inner),
)


@given(st.dictionaries(st.text(), anything))
def test_anything_can_be_logged(event: dict[str, Any]) -> None:
    line = as_json(event)
    assert line.endswith(b"\n") and line.count(b"\n") == 1
    json.loads(line)
    for colour in (True, False):
        assert as_text(event, colour=colour).endswith(b"\n")


def test_what_people_see_cannot_steer_their_terminal() -> None:
    event = {"time": "2026-01-02T03:04:05.678901Z", "level": "error", "service": "api", "host": "h"}
    shown = as_text({**event, "event": "go\x1b[2J", "name": "a\nb", "exception": "one\n\x07two"}, colour=False)
    assert shown == b"03:04:05.678 error    api@h  go\\x1b[2J  name=a\\nb\n    one\n    \\x07two\n"


@pytest.mark.parametrize("level", [1, 10, 25, 35, 45, 99])
def test_lines_of_libraries_of_any_level(tmp_path: Path, level: int) -> None:
    log.set_up(tmp_path)
    logging.getLogger("strange").setLevel(1)
    logging.getLogger("strange").log(level, "%d and %d", "no number")
    logging.getLogger("strange").log(level, "%d", 5)
    events = [line["event"] for line in lines(tmp_path)] if level > 10 else []
    assert events == (["%d and %d", "5"] if level > 10 else [])


def test_a_disk_that_is_full_is_told_once_and_loses_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "kilonova.log").symlink_to("/dev/full")
    log.set_up(tmp_path)
    for number in range(3):
        log.get_logger("x").info("event", number=number)
    told = capfd.readouterr().err.splitlines()
    assert "No space left" in told[0] and "kilonova.log" in told[0]
    assert [json.loads(line)["number"] for line in told[1:]] == [0, 1, 2]


def test_a_directory_that_cannot_be_made_is_no_reason_to_stop(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    log.set_up(tmp_path / "file" / "logs")
    log.get_logger("x").info("still here")
    assert "still here" in capfd.readouterr().err


def test_without_a_standard_error_nothing_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log.set_up(None)
    monkeypatch.setattr(sys, "stderr", None)
    log.get_logger("x").info("to nobody")


def test_a_service_cannot_name_a_file_elsewhere(tmp_path: Path) -> None:
    log.set_up(tmp_path / "logs")
    log.get_logger("x").info("event", service="../../etc/passwd")
    assert [path.parent for path in tmp_path.rglob("*.log")] == [tmp_path / "logs"]


def test_options_reach_the_files(tmp_path: Path) -> None:
    log.set_up(tmp_path, options=log.LogOptions(max_logfile_size_mb=1, max_logfile_count=1))
    for _ in range(5):
        log.get_logger("x").info("x" * 400_000)
    assert {path.name for path in tmp_path.iterdir()} == {"kilonova.log", "kilonova.log.1"}
