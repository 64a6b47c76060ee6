"""``kilonova db``: what it does, and what it says when it cannot."""

import sqlite3
from pathlib import Path

import pytest

from kilonova.cli.main import main


def test_up_down_and_where_it_stands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = ["--state", str(tmp_path)]
    assert main(["db", "upgrade", *state]) == 0
    assert main(["db", "downgrade", "0001", *state]) == 0
    assert "revision 0001" in capsys.readouterr().out
    file = tmp_path / "kilonova.conf"
    file.write_text(f"[database]\nconnection = sqlite:///{tmp_path / 'kilonova.sqlite'}\n")
    assert main(["db", "current", "--config-file", str(file)]) == 0
    assert "revision 0001" in capsys.readouterr().out


def test_a_database_is_not_taken_the_wrong_way_or_past_what_is_known(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = ["--url", f"sqlite:///{tmp_path / 'db.sqlite'}"]
    assert main(["db", "upgrade", "0005", *url]) == 0
    assert main(["db", "downgrade", "head", *url]) == 2
    assert "upgrade" in capsys.readouterr().err
    assert main(["db", "upgrade", "0001", *url]) == 2
    assert "downgrade" in capsys.readouterr().err
    with sqlite3.connect(tmp_path / "db.sqlite") as database:
        database.execute("UPDATE schema_version SET version_num = '9999'")
    for verb in (["upgrade"], ["downgrade", "base"], ["current"]):
        assert main(["db", *verb, *url]) == 2
        assert "made by a newer one" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (["upgrade", "--state", "/nowhere/at/all"], 2, "no directory /nowhere/at/all"),
        (["upgrade", "--config-file", "/nowhere.conf"], 2, "/nowhere.conf"),
        (["upgrade", "9999", "--url", "sqlite://"], 2, "no revision '9999'"),
        (["downgrade", "--url", "sqlite://"], 2, "Say where to"),
        (["current", "--url", "postgresql+psycopg://me:hidden@127.0.0.1:1/x"], 1, "cannot be used"),
        (["current", "--url", "mysql+pymysql://me:hidden@127.0.0.1:1/x"], 1, "cannot be used"),
        (["current", "--url", "gibberish"], 1, "cannot be used"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(
    words: list[str], status: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["db", *words]) == status
    errors = capsys.readouterr().err
    assert told in errors and "hidden" not in errors and "Traceback" not in errors
