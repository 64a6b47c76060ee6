"""One request through the logs, whatever else stands in them."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from kilonova.cli.main import main

ID = "req-11111111-1111"


def a_log(path: Path, *lines: dict[str, Any] | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))


def a_line(second: int, event: str, **fields: Any) -> dict[str, Any]:
    return {"time": f"2026-01-02T03:04:{second:02}.5Z", "event": event, "request_id": ID, "service": "api", **fields}


def events(text: str) -> list[str]:
    return [json.loads(line)["event"] for line in text.splitlines()]


def test_lines_of_several_files_and_directories_in_order_of_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a_log(tmp_path / "one/logs/api.log", a_line(1, "a"), a_line(5, "e"))
    a_log(tmp_path / "one/logs/api.log.1", a_line(0, "before"))
    a_log(tmp_path / "one/logs/notes.txt", a_line(1, "no log"))
    a_log(tmp_path / "two/logs/compute.log", {**a_line(3, "c"), "time": "2026-01-02T05:04:03.500+02:00"})
    (tmp_path / "more").mkdir()
    with gzip.open(tmp_path / "more/old.log.2.gz", "wt") as packed:
        packed.write(json.dumps(a_line(2, "b")) + "\n")
    where = ["--state", str(tmp_path / "one"), "--state", str(tmp_path / "two"), "--logs", str(tmp_path / "more")]
    assert main(["trace", ID, *where, "--json"]) == 0
    assert events(capsys.readouterr().out) == ["before", "a", "b", "c", "e"]


def test_strange_lines_are_survived(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a_log(
        tmp_path / "api.log",
        a_line(1, "a"),
        f"{ID} plain text",
        f'["{ID}"]',
        f'{{"request_id": "{ID}", "event": "cut',
        {"request_id": ID},
        {"request_id": ID, "event": "no time"},
        {"request_id": ID, "event": "odd time", "time": 5, "host": None},
        {"request_id": "req-2", "event": "another", "cause": ID},
        a_line(0, "earlier"),
    )
    (tmp_path / "bytes.log").write_bytes(b"\xff\xfe" + ID.encode() + b"\n")
    (tmp_path / "dir.log").mkdir()
    (tmp_path / "bad.log.gz").write_bytes(b"no gzip")
    assert main(["trace", ID, "--logs", str(tmp_path)]) == 0
    told = capsys.readouterr()
    assert [told.out.index(word) for word in ("earlier", " a ", "no time", "odd time")] == sorted(
        told.out.index(word) for word in ("earlier", " a ", "no time", "odd time")
    ), "what has no time stays behind the line before it"
    assert "another" not in told.out
    assert "dir.log cannot be read" in told.err and "bad.log.gz cannot be read" in told.err


def test_what_looks_like_markup_is_shown_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a_log(tmp_path / "api.log", a_line(1, "[/bold] ev", cause="[red]x[/red] \x1b[2J", where="[nonsense"))
    assert main(["trace", ID, "--logs", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "[/bold] ev" in out and "[red]x[/red] \\x1b[2J" in out and "where=[nonsense" in out
    assert "\x1b[2J" not in out


def test_a_trace_back_is_its_last_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a_log(tmp_path / "api.log", a_line(1, "x", exception="Traceback\n  File\nValueError: no"))
    assert main(["trace", ID, "--logs", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "exception=ValueError: no" in out and "Traceback" not in out


def test_what_a_request_was_the_cause_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a_log(tmp_path / "api.log", a_line(1, "a"), {**a_line(2, "b"), "request_id": "req-9", "global_request_id": ID})
    assert main(["trace", ID, "--logs", str(tmp_path), "--json"]) == 0
    assert events(capsys.readouterr().out) == ["a", "b"]


def test_a_beginning_is_enough_if_it_fits_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a_log(tmp_path / "api.log", a_line(1, "a"), {**a_line(2, "b"), "request_id": "req-12"})
    assert main(["trace", "req-11", "--logs", str(tmp_path), "--json"]) == 0
    assert events(capsys.readouterr().out) == ["a"]
    assert main(["trace", "req-1", "--logs", str(tmp_path)]) == 1
    assert f"begins 2 requests: {ID}, req-12" in capsys.readouterr().err


def test_nothing_found_is_said_clearly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trace", ID, "--logs", str(tmp_path)]) == 1
    assert f"No line of {ID}" in capsys.readouterr().err
    assert main(["trace", ID, "--state", str(tmp_path / "gone")]) == 1
    assert "There is no directory" in capsys.readouterr().err
