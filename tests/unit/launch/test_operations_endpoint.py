"""What a process tells of itself, and ``kilonova inspect`` that shows it: on a real port, with a broken part each."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from kilonova.base.clock import SystemClock
from kilonova.base.config import Config
from kilonova.cli.main import main
from kilonova.launch.addresses import Address
from kilonova.launch.operations import LATE_S, Operations
from kilonova.launch.options import DeploymentOptions
from kilonova.launch.process import Process
from kilonova.launch.state import StateDir
from kilonova.model.errors import Unavailable
from kilonova.rpc.transports.memory import MemoryTransport


class ShiftedClock(SystemClock):
    """The machine's clock, which can be put forward."""

    ahead = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead


class Watched:
    def __init__(self, root: Path) -> None:
        self.clock = ShiftedClock()
        config = Config(overrides={"DEFAULT": {"transport_url": "amqp://me:hidden@h/"}})
        config.get(DeploymentOptions)
        self.process = Process(
            StateDir(root), config, MemoryTransport(self.clock), name="x", host="h", clock=self.clock
        )
        self.operations = Operations(self.process, Address("127.0.0.1", 0), ("api", "conductor"))
        self.file = root / "run" / "h-x.json"

    async def ask(self, path: str) -> httpx.Response:
        async with httpx.AsyncClient(trust_env=False) as client:
            return await client.get(json.loads(self.file.read_text())["url"] + path)


@pytest.fixture
async def watched(tmp_path: Path) -> AsyncIterator[Watched]:
    made = Watched(tmp_path)
    await made.process.open()
    await made.operations.start()
    yield made
    await made.process.close()
    assert not made.file.exists(), "what is gone is not found any more"


async def test_ready_and_its_metrics(watched: Watched) -> None:
    assert (await watched.ask("/healthz")).json() == {"alive": True}
    assert (await watched.ask("/readyz")).json() == {"ready": True, "waiting_for": {}}
    text = (await watched.ask("/metrics")).text
    assert "process_resident_memory_bytes" in text and "# TYPE kilonova_event_loop_lag_seconds histogram" in text


@pytest.mark.parametrize(
    ("fault", "told"), [(Unavailable("no route"), "no route"), (ValueError("odd"), "ValueError: odd")]
)
async def test_a_check_that_fails_is_named_with_its_cause(watched: Watched, fault: Exception, told: str) -> None:
    async def check() -> None:
        raise fault

    watched.operations.add_check("database", check)
    answer = await watched.ask("/readyz")
    assert answer.status_code == 503 and answer.json()["waiting_for"] == {"database": told}


async def test_what_is_told_at_a_path_of_its_own(watched: Watched) -> None:
    async def answer(hosts: Sequence[str]) -> dict[str, list[str]]:
        if "lost" in hosts:
            raise Unavailable("no route")
        return {"asked": list(hosts)}

    assert (await watched.ask("/guests")).status_code == 404
    watched.operations.add_answer("/guests", answer)
    assert (await watched.ask("/guests?host=a&host=b")).json() == {"asked": ["a", "b"]}
    assert (await watched.ask("/guests")).json() == {"asked": []}
    failed = await watched.ask("/guests?host=lost")
    assert failed.status_code == 503 and failed.json() == {"cause": "no route"}
    assert "/guests" in (await watched.ask("/elsewhere")).json()["paths"]


async def test_periodic_work_that_hangs_or_fails_is_seen(watched: Watched) -> None:
    failed, forever = asyncio.Event(), asyncio.Event()

    async def fails() -> None:
        failed.set()
        raise Unavailable("nobody there")

    watched.process.repeat("a.fails", 0.01, fails)
    watched.process.repeat("b.hangs", 0.01, forever.wait)
    await failed.wait()
    await asyncio.sleep(0.05)
    assert (await watched.ask("/readyz")).status_code == 200, "it may take its time"
    loops = {loop["loop"]: loop for loop in (await watched.ask("/inspect")).json()["loops"]}
    assert loops["a.fails"]["runs"] >= 1 and loops["a.fails"]["failure"] == "nobody there"
    assert loops["b.hangs"]["runs"] == 0 and loops["b.hangs"]["s in this run"] > 0
    watched.clock.ahead += LATE_S + 5
    await asyncio.sleep(0.05)
    cause = (await watched.ask("/readyz")).json()["waiting_for"]["loops"]
    assert "b.hangs" in cause and "a.fails" not in cause


async def test_inspect_masks_secrets_and_survives_a_broken_section(watched: Watched) -> None:
    def broken() -> Any:
        raise RuntimeError("no")

    watched.operations.add_section("broken", broken)
    watched.operations.add_section("guests", lambda: [{"name": "web", "admin_password": "hidden"}])
    answer = await watched.ask("/inspect")
    found = answer.json()
    assert "hidden" not in answer.text
    assert found["guests"][0]["name"] == "web" and found["broken"] == {"cannot be shown": "RuntimeError: no"}
    assert found["config"]["DEFAULT"]["transport_url"] == "amqp://me:***@h/"
    assert "operations.lag" in [one["name"] for one in found["waiting in the event loop"]]


async def inspect(*words: str) -> int:
    return await asyncio.to_thread(main, ["inspect", *words])


async def test_the_command_by_state_service_and_url(
    watched: Watched, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    watched.operations.add_section("guests", lambda: [{"name": f"[red]{n}\x1b[2J"} for n in range(60)])
    url = json.loads(watched.file.read_text())["url"]
    for words in (["--state", str(tmp_path)], ["--state", str(tmp_path), "--service", "api"], ["--url", f"{url}/"]):
        assert await inspect(*words) == 0
        out = capsys.readouterr().out
        assert "api, conductor on h" in out and "ready" in out and "guests (60)" in out
        assert "[red]5\\x1b[2J" in out and "\x1b[2J" not in out and "and 10 more" in out
        assert "transport_url" not in out
    assert await inspect("--url", url, "--config") == 0
    assert "amqp://me:***@h/" in capsys.readouterr().out
    assert await inspect("--url", url, "--json") == 0
    assert len(json.loads(capsys.readouterr().out)[0]["guests"]) == 60
    assert await inspect("--state", str(tmp_path), "--service", "network") == 1
    assert "with the service network" in capsys.readouterr().err


async def test_what_does_not_answer_is_told(
    watched: Watched, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    told = {"services": ["compute"], "url": "http://127.0.0.1:1", "host": "h"}
    (run / "0-broken.json").write_text("{")
    (run / "1-odd.json").write_text("{}")
    (run / "2-dead.json").write_text(json.dumps(told | {"pid": 2**22 + 1}))
    (run / "3-deaf.json").write_text(json.dumps(told | {"pid": os.getpid()}))
    assert await inspect("--state", str(tmp_path)) == 0, "one answers"
    err = capsys.readouterr().err
    assert "0-broken.json cannot be read" in err and "1-odd.json cannot be read" in err
    assert "is dead" in err and "does not answer" in err
    for url in ("http://127.0.0.1:1", "no url"):
        assert await inspect("--url", url) == 1
        assert "does not answer" in capsys.readouterr().err
