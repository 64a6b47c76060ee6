"""``kilonova explain`` where there is nothing to explain: a line that says what is wrong, and what to do."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from kilonova.cli.main import main
from kilonova.model.server import Decision
from kilonova.store import migrations
from kilonova.store.engine import Store
from kilonova.store.queries import decisions

ID = "3f0c8a1e-0000-4000-8000-000000000000"
AUTH = "clouds: {kilonova: {auth: {auth_url: 'http://127.0.0.1:1', username: a, password: hidden, project_name: p}}}"


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({}, "neither clouds.yaml nor a database"),
        ({"kilonova.sqlite": ""}, "kilonova db upgrade"),
        ({"kilonova.sqlite": "no database " * 200}, "not a database"),
        ({"clouds.yaml": "clouds: ["}, "cannot be read"),
        ({"clouds.yaml": "[]"}, "has no cloud 'kilonova'"),
        ({"clouds.yaml": "clouds: {kilonova: {auth: {username: a}}}"}, "has no auth_url, password, project_name"),
        ({"clouds.yaml": AUTH}, "no answer"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], files: dict[str, str], told: str
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert main(["explain", ID, "--state", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert told in err and err.count("\n") == 1 and "hidden" not in err


def test_a_question_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain"]) == 2
    assert "Give a server's id or name" in capsys.readouterr().err


def test_a_name_that_no_server_has(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store.open(f"sqlite:///{tmp_path / 'kilonova.sqlite'}", inline=True)
    migrations.upgrade(store.engine)
    assert main(["explain", "web", "--state", str(tmp_path)]) == 2
    assert "There is no server 'web'" in capsys.readouterr().err


def test_where_nothing_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store.open(f"sqlite:///{tmp_path / 'kilonova.sqlite'}", inline=True)
    migrations.upgrade(store.engine)
    store.engine.dispose()
    assert main(["explain", ID, "--state", str(tmp_path)]) == 1
    assert "No decision" in capsys.readouterr().err
    (tmp_path / "clouds.yaml").write_text(AUTH)
    assert main(["explain", ID, "--state", str(tmp_path)]) == 1, "the cloud does not run: its database answers"


def test_a_race_that_was_lost_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store.open(f"sqlite:///{tmp_path / 'kilonova.sqlite'}", inline=True)
    migrations.upgrade(store.engine)
    explanation = {"filters": [["", 2], ["RamFilter", 2]], "chosen": ["h1", "h2"], "races_lost": {"h1": "MEMORY_MB"}}
    at = datetime(2026, 1, 1, tzinfo=UTC)
    store.run_now(
        decisions.add,
        Decision(server_id=ID, request_id="req-1", attempt=1, host="h2", explanation=explanation, created_at=at),
    )
    store.engine.dispose()
    assert main(["explain", ID, "--state", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert "Placed on h2" in told and "Lost the race for MEMORY_MB on h1" in told
