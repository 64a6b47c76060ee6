"""What a process tells of itself, and what SIGHUP changes: one process of all services, its queue in memory."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.support.deployment import KILONOVA, Deployment
from tests.support.stores import SERVER

ALL = ("api", "conductor", "scheduler", "compute", "network")


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    root = tmp_path_factory.mktemp("one")
    made = Deployment(
        root, database=f"sqlite:///{root / 'db.sqlite'}", transport="memory://", config="[compute]\nvirt = fake\n"
    )
    made.migrate()
    made.start("one", *ALL)
    yield made
    made.stop()


def told(cloud: Deployment) -> dict[str, object]:
    [file] = (cloud.control / "run").glob("*.json")
    found: dict[str, object] = json.loads(file.read_text())
    return found


def test_a_process_answers_about_itself(cloud: Deployment) -> None:
    url = str(told(cloud)["url"])
    assert url.startswith("http://127.0.0.1:"), "on loopback unless told otherwise"
    assert httpx.get(f"{url}/healthz").json() == {"alive": True}
    assert httpx.get(f"{url}/readyz").json() == {"ready": True, "waiting_for": {}}
    metrics = httpx.get(f"{url}/metrics").text
    assert "# TYPE kilonova_calls_waiting gauge" in metrics
    seen = httpx.get(f"{url}/inspect").json()
    assert seen["services"] == list(ALL) and seen["tasks"] == [] and seen["pid"] == told(cloud)["pid"]
    assert {"conductor", "scheduler", "compute.one"} <= {queue["queue"] for queue in seen["queues"]}
    assert httpx.get(f"{url}/elsewhere").status_code == 404


def test_inspect_shows_it(cloud: Deployment) -> None:
    command = [*KILONOVA, "inspect", "--state", str(cloud.control)]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "conductor" in shown and "ready" in shown and "compute.one" in shown
    objects = json.loads(subprocess.run([*command, "--json"], capture_output=True, check=True).stdout)
    assert objects[0]["host"] == "one"
    nobody = subprocess.run([*KILONOVA, "inspect", "--state", "/nowhere"], capture_output=True, text=True, check=False)
    assert nobody.returncode == 1 and "--state" in nobody.stderr


def test_sighup_takes_over_debug(cloud: Deployment) -> None:
    file = cloud.root / f"one-{'-'.join(ALL)}.conf"
    log = cloud.root / "logs" / f"one-{'-'.join(ALL)}" / "kilonova.log"
    before = file.read_text()

    def reload(text: str) -> str:
        size = log.stat().st_size
        file.write_text(text)
        os.kill(int(str(told(cloud)["pid"])), signal.SIGHUP)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            lines = log.read_bytes()[size:].decode()
            if "configuration" in lines:
                return lines
            time.sleep(0.05)
        raise TimeoutError

    assert '"debug":true' in reload(before.replace("[DEFAULT]", "[DEFAULT]\ndebug = true", 1))
    assert '"debug":false' in reload(before)
    assert "cannot be read" in reload("no equals sign here")
    reload(before)
    assert cloud.services[f"one-{'-'.join(ALL)}"].process.poll() is None


def test_an_option_that_needs_a_restart_is_told(cloud: Deployment) -> None:
    file = cloud.root / f"one-{'-'.join(ALL)}.conf"
    log = cloud.root / "logs" / f"one-{'-'.join(ALL)}" / "kilonova.log"
    before = file.read_text()
    size = log.stat().st_size
    file.write_text(before.replace("host = one", "host = two"))
    try:
        os.kill(int(str(told(cloud)["pid"])), signal.SIGHUP)
        deadline = time.monotonic() + 10
        while "configuration was read again" not in (lines := log.read_bytes()[size:].decode()):
            assert time.monotonic() < deadline, lines
            time.sleep(0.05)
    finally:
        file.write_text(before)
    assert "needs a restart" in lines and '"option":"[DEFAULT] host"' in lines and '"after":"two"' in lines


def test_a_process_that_waits_says_for_what(tmp_path: Path) -> None:
    lonely = Deployment(
        tmp_path, database=f"sqlite:///{tmp_path / 'db.sqlite'}", transport="amqp://a:hidden@127.0.0.1:1/"
    )
    service = lonely.start("one", "conductor", wait=False)
    try:
        deadline = time.monotonic() + 20
        while not list((lonely.control / "run").glob("*.json")):
            assert time.monotonic() < deadline, service.said()
            time.sleep(0.05)
        answer = httpx.get(f"{told(lonely)['url']}/readyz", timeout=10)
        assert answer.status_code == 503
        assert "broker" in answer.json()["waiting_for"] and "hidden" not in answer.text
    finally:
        assert service.terminate() == 0, "it can be stopped while it waits"
    assert not list((lonely.control / "run").glob("*.json"))


def test_a_database_without_tables_is_refused_with_what_to_do(tmp_path: Path) -> None:
    fresh = Deployment(tmp_path, database=f"sqlite:///{tmp_path / 'db.sqlite'}", transport="memory://")
    service = fresh.start("one", "api", wait=False)
    assert service.process.wait(timeout=30) == 1
    assert "kilonova db upgrade" in service.said() and "Traceback" not in service.said()


@pytest.mark.parametrize(
    ("words", "told_"),
    [(["gardener"], "There are: api"), (["api", "--config-file", "/nowhere"], "/nowhere"), (["api"], "transport_url")],
)
def test_what_cannot_be_run_is_said_in_a_line(words: list[str], told_: str) -> None:
    plain = {name: value for name, value in os.environ.items() if name != SERVER}
    done = subprocess.run(
        [sys.executable, "-m", "kilonova.cli.main", "service", *words],
        capture_output=True,
        text=True,
        env=plain,
        check=False,
    )
    assert done.returncode == 2 and told_ in done.stderr and "Traceback" not in done.stderr
