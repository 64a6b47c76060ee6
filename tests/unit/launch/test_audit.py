"""What `kilonova doctor --invariants` says of a cloud whose books agree, and of one whose books do not."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from kilonova.base.clock import SystemClock
from kilonova.base.metrics import exposition, new_registry
from kilonova.cli.main import main
from kilonova.conductor.audit import LATE_S, Audit
from kilonova.launch.state import StateDir
from kilonova.store import migrations
from kilonova.store.engine import Store
from kilonova.store.queries import quotas, tasks


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(StateDir(tmp_path).database_url, inline=True)
    migrations.upgrade(opened.engine)
    yield opened
    opened.engine.dispose()


def told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
    status = main(["doctor", "--invariants", "--state", str(tmp_path), "--json"])
    findings = json.loads(capsys.readouterr().out)
    return status, [finding["text"] for finding in findings if finding["level"] == "fail"]


def test_an_empty_cloud_agrees(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert told(tmp_path, capsys) == (0, [])


def test_quota_that_nobody_uses_is_told_and_counted(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store.run_now(quotas.set_limits, "", {"instances": 10})
    store.run_now(quotas.take, "p", {"instances": 2})
    assert told(tmp_path, capsys) == (
        1,
        ["leaked: quota in use is what there is: instances of p: 2, and there are 0"],
    )


async def test_drift_is_a_number_in_the_metrics(store: Store) -> None:
    registry = new_registry()
    audit = Audit(store, SystemClock(), registry)
    assert await audit.look() == []
    assert b'kilonova_invariant_drift{kind="leaked"} 0.0' in exposition(registry)
    store.run_now(quotas.set_limits, "", {"instances": 10})
    store.run_now(quotas.take, "p", {"instances": 2})
    assert len(await audit.look()) == 1
    assert b'kilonova_invariant_drift{kind="leaked"} 1.0' in exposition(registry)


@pytest.mark.parametrize(("seconds", "stuck"), [(LATE_S / 2, 0), (2 * LATE_S, 1)])
async def test_a_task_that_nobody_takes_is_stuck_after_a_while(store: Store, seconds: float, stuck: int) -> None:
    begun = datetime.now(UTC) - timedelta(seconds=seconds)
    store.run_now(tasks.insert, task_id="t", kind="k", subject="s", payload={}, request_id="r", at=begun)
    assert len(await Audit(store, SystemClock(), new_registry()).look()) == stuck


def test_a_directory_without_a_cloud_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, [text] = told(tmp_path, capsys)
    assert status == 1 and "There is no database" in text
