"""What `make soak` says at its end: kills in the middle of something, and whether there were enough."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from kilonova.cli.simulate import SHOWN, _counted

SCRIPT = Path(__file__).parents[3] / "scripts" / "soak_sums.py"
ENOUGH = {f"server.{kind}": 1_000 for kind in ("boot", "delete", "rebuild", "reboot", "stop", "start")}


def sums(tmp_path: Path, points: dict[str, int], *words: str, runs: int = 10, violations: int = 0) -> tuple[int, str]:
    told = dict.fromkeys(("kills", "stuck", "leaked", "doubled", "wall_s"), 0)
    for name in ("one", "two"):
        text = json.dumps({**told, "runs": runs, "violations": violations, "kill_points": points})
        (tmp_path / f"{name}.json").write_text(text)
    files = [str(tmp_path / "one.json"), str(tmp_path / "two.json")]
    done = subprocess.run([sys.executable, str(SCRIPT), *files, *words], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_enough_of_all(tmp_path: Path) -> None:
    status, said = sums(tmp_path, ENOUGH, "--whole", "20")
    assert status == 0 and "together: 12,000 kill points in 20 runs" in said and "FAILED" not in said


@pytest.mark.parametrize(
    ("points", "told"),
    [
        (dict.fromkeys(ENOUGH, 800), "9,600 kill points, and 10,000 are asked for"),
        (dict.fromkeys(ENOUGH, 800) | {"nothing": 90_000}, "9,600 kill points"),
        (ENOUGH | {"server.boot": 9_000, "server.rebuild": 0}, "no service was killed in the middle of a rebuild"),
    ],
)
def test_too_little_fails_a_whole_soak_and_is_remarked_on_in_a_shorter_one(
    tmp_path: Path, points: dict[str, int], told: str
) -> None:
    status, said = sums(tmp_path, points, "--whole", "20")
    assert status == 1 and f"FAILED: {told}" in said
    status, said = sums(tmp_path, points, "--whole", "21")
    assert status == 0 and f"remark: {told}" in said


def test_broken_rules_fail_any_soak(tmp_path: Path) -> None:
    status, said = sums(tmp_path, ENOUGH, "--whole", "1500", violations=3)
    assert status == 1 and "FAILED: 6 violations" in said


def test_all_broken_rules_are_counted_and_some_are_shown() -> None:
    counted = _counted({"violations": [f"odd: rule: {number}" for number in range(SHOWN + 7)]})
    assert counted["violations"] == SHOWN + 7 and len(counted["broken_rules"]) == SHOWN
