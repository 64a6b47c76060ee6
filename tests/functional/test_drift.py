"""What a running cloud says when a hypervisor runs something else than the books say."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.support.running import RunningCloud

from kilonova.launch.running import running
from kilonova.model.states import PowerState
from kilonova.virt.fake.journal import Entry, Journal

OFTEN = "[conductor]\ninvariant_check_interval = 1\ninvariant_check_again = 0.5\n"
STUBBORN = "[fake]\ndestroy_failures = 1\n"
"""A hypervisor that cannot remove a guest: agents try, in vain."""


@pytest.fixture
def made(tmp_path: Path) -> Iterator[RunningCloud]:
    cloud = RunningCloud(tmp_path / "state", virt="fake", hosts=3, config=OFTEN)
    yield cloud
    if cloud.process is not None and cloud.process.poll() is None:
        cloud.stop()


def doctor(cloud: RunningCloud) -> tuple[int, list[tuple[str, str]]]:
    where = cloud.whereabouts
    if "--state" in where:
        where += ["--config-file", str(cloud.config)]  # how long until the second look
    done = subprocess.run(
        [sys.executable, "-m", "kilonova.cli.main", "doctor", "--invariants", *where, "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, [(finding["level"], finding["text"]) for finding in json.loads(done.stdout)]


def wait_for_drift(cloud: RunningCloud, kind: str, value: float) -> str:
    """The metrics, once they show this."""
    process = next(running(cloud.state, service="conductor"))
    deadline = time.monotonic() + 20
    while (
        f'kilonova_invariant_drift{{kind="{kind}"}} {value}\n' not in (told := httpx.get(f"{process.url}/metrics").text)
        or "kilonova_invariant_check_hosts 3.0\n" not in told
    ):
        assert time.monotonic() < deadline, [line for line in told.splitlines() if "invariant" in line]
        time.sleep(0.1)
    return told


def test_a_guest_that_nobody_asked_for_is_in_the_metrics_and_told_by_doctor(made: RunningCloud) -> None:
    made.config.write_text(OFTEN + STUBBORN)
    made.start()
    client = made.client()
    server_id = client.boot("s", client.upload_image("tiny", b"\0" * 65536), client.flavor())
    host = client.wait(server_id, "ACTIVE")["OS-EXT-SRV-ATTR:host"]
    wait_for_drift(made, "leaked", 0.0)
    assert doctor(made) == (0, [("ok", "1 servers agree, with guests on 3 hosts")])
    made.stop()

    other = sorted({path.name for path in (made.state / "hosts").iterdir() if path.name.startswith("fake-")} - {host})
    stray = Entry(
        server_id=server_id, name="x", power_state=PowerState.RUNNING, vcpus=1, memory_mib=128, root_gib=1, boots=1
    )
    Journal(made.state / "hosts" / other[0] / "guests.jsonl").add(stray)
    made.start()
    wait_for_drift(made, "leaked", 1.0)
    wait_for_drift(made, "doubled", 1.0)
    status, findings = doctor(made)
    assert status == 1 and {level for level, _ in findings} == {"fail"}
    assert any(f"the guest is on {other[0]}, the server is on {host}" in text for _, text in findings)
    assert any(f"no guest is on two hosts: {server_id}" in text for _, text in findings)
    made.stop()

    made.config.write_text(OFTEN)  # now it can be removed, and is
    if (made.state / "service.conf").exists():
        service = made.state / "service.conf"
        service.write_text(service.read_text().replace(STUBBORN, ""))
    made.start()
    wait_for_drift(made, "leaked", 0.0)
    wait_for_drift(made, "doubled", 0.0)
    assert doctor(made) == (0, [("ok", "1 servers agree, with guests on 3 hosts")])


def test_doctor_says_so_if_the_cloud_does_not_run(made: RunningCloud) -> None:
    made.start()
    made.stop()
    status, findings = doctor(made)
    assert status == 0
    assert findings[-1] == ("ok", "0 servers agree, with guests on 0 hosts")
    assert len(findings) == 4
    assert all(level == "warn" and "no process of this cloud runs" in text for level, text in findings[:-1])
