"""The command ``kilonova simulate``: one JSON object, an exit status, and the way to replay what failed."""

import json

import pytest
from tests.sim.breakages import BREAKAGES

from kilonova.cli.main import main

PROMISED = {
    *("seed", "events", "kills", "messages_lost", "servers_created", "servers_active", "servers_deleted", "stuck"),
    *("leaked", "doubled", "violations", "history_hash", "wall_s"),
}


def test_one_run_is_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "--hosts", "2", "--servers", "2", "--seed", "3", "--json"]) == 0
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert told.keys() >= PROMISED and told["seed"] == 3 and told["violations"] == 0 and told["broken_rules"] == []
    assert "seed 3: all well" in err


def test_several_runs_are_their_sums(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "--hosts", "2", "--servers", "2", "--seeds", "3-4", "--json"]) == 0
    both = json.loads(capsys.readouterr().out)
    kills = []
    for seed in ("3", "4"):
        main(["simulate", "--hosts", "2", "--servers", "2", "--seed", seed, "--json"])
        one = json.loads(capsys.readouterr().out)
        assert both["history_hashes"][seed] == one["history_hash"]
        kills.append(one["kills"])
    assert both["runs"] == 2 and both["kills"] == sum(kills)


def test_the_history_is_for_those_who_ask(capsys: pytest.CaptureFixture[str]) -> None:
    main(["simulate", "--hosts", "1", "--servers", "1", "--faults", "none", "--verbose"])
    out, err = capsys.readouterr()
    assert "guest runs" in err and "guest runs" not in out and "All is as promised." in out


def test_a_broken_rule_is_told_with_its_replay(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    next(one for one in BREAKAGES if one.name == "quota is not given back").apply(monkeypatch)
    words = ["simulate", "--hosts", "3", "--servers", "5", "--seed", "1", "--json", "--shrink", "5"]
    assert main(words) == 1
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert told["leaked"] > 0 and any("quota in use" in text for text in told["broken_rules"])
    assert told["violations"] == len(told["broken_rules"])
    command = told["shrunk"]["command"]
    assert f"replay with: {command} --verbose" in err
    assert main([*command.split()[1:], "--json", "--shrink", "0"]) == 1
    assert json.loads(capsys.readouterr().out)["history_hash"] == told["shrunk"]["history_hash"]


@pytest.mark.parametrize("words", [["--faults", "kil"], ["--seeds", "x-y"], ["--without", "a"]])
def test_a_wrong_question_is_told(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", *words]) == 2
    assert capsys.readouterr().err
