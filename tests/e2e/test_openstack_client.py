"""The standard client's whole day with one server, on a real guest."""

import re
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.conftest import CLIENT, GUEST_IMAGE, OpenStack
from tests.support.remains import Remains
from tests.support.running import RunningCloud

pytestmark = [pytest.mark.real, pytest.mark.slow]


def _until(text: str, look: Any, timeout_s: float = 120) -> str:
    deadline = time.monotonic() + timeout_s
    while True:
        found = str(look())
        if text in found:
            return found
        assert time.monotonic() < deadline, f"no {text!r} in: {found[-2000:]}"
        time.sleep(1)


def test_a_day_with_a_server(cloud: RunningCloud, openstack: OpenStack, remains: Remains, tmp_path: Path) -> None:
    assert CLIENT.exists(), "make test installs the client into .venv-clients"
    image = openstack(
        "image", "create", "tiny", "--disk-format", "qcow2", "--container-format", "bare", "--file", str(GUEST_IMAGE)
    )
    assert image["status"] == "active"
    openstack("flavor", "create", "tiny", "--ram", "128", "--vcpus", "1", "--disk", "1")
    network = openstack("network", "create", "blue")
    openstack("subnet", "create", "blue-v4", "--network", "blue", "--subnet-range", "10.91.7.0/24")
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    openstack("keypair", "create", "mine", "--public-key", f"{key}.pub")
    # Nothing comes to a server but what its project's servers send, until its owner says so.
    openstack("security", "group", "create", "reached")
    openstack("security", "group", "rule", "create", "--protocol", "tcp", "--dst-port", "22", "reached")

    server = openstack(
        "server", "create", "first", "--image", "tiny", "--flavor", "tiny", "--key-name", "mine",
        "--network", "blue", "--property", "colour=blue", "--security-group", "reached", "--wait", timeout=400,
    )  # fmt: skip
    assert server["status"] == "ACTIVE"
    [port] = openstack("port", "list", "--server", "first")
    assert openstack("port", "show", port["ID"])["security_group_ids"] == [
        openstack("security", "group", "show", "reached")["id"]
    ]
    [agent] = openstack("network", "agent", "list")
    assert agent["Alive"] is True
    assert network["name"] in str(server["addresses"])
    address = re.search(r"10\.91\.7\.\d+", str(server["addresses"]))
    assert address is not None

    console = _until("READY", lambda: openstack("console", "log", "show", "first", parse=False))
    assert address.group() in console

    ssh = [
        "ssh", "-i", str(key), "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
        "-o", "ConnectTimeout=5", "-o", "BatchMode=yes", f"root@{address.group()}",
    ]  # fmt: skip
    metadata = _until(
        server["id"],
        lambda: (
            subprocess.run(
                [*ssh, "timeout 10 wget -q -O - http://169.254.169.254/openstack/latest/meta_data.json"],
                capture_output=True,
                text=True,
                check=False,
            ).stdout
        ),
    )
    assert '"colour"' in metadata
    hostname = subprocess.run([*ssh, "hostname"], capture_output=True, text=True, check=True).stdout.strip()
    assert hostname == "first"

    # Out of the group nothing reaches it any more; back in it, it is reached again.
    for word, answer in (("remove", "timed out"), ("add", "first")):
        openstack("server", word, "security", "group", "first", "reached", parse=False)
        _until(
            answer,
            lambda: "{0.stdout}{0.stderr}".format(
                subprocess.run([*ssh, "hostname"], capture_output=True, text=True, check=False)
            ),
        )

    openstack("server", "reboot", "--hard", "--wait", "first", parse=False, timeout=400)
    assert openstack("server", "show", "first")["status"] == "ACTIVE"
    _until(
        "up",
        lambda: subprocess.run([*ssh, "uptime"], capture_output=True, text=True, check=False).stdout,
    )
    openstack("server", "stop", "first", parse=False)
    _until("SHUTOFF", lambda: openstack("server", "show", "first")["status"])
    openstack("server", "start", "first", parse=False)
    _until("ACTIVE", lambda: openstack("server", "show", "first")["status"])

    _until("up", lambda: subprocess.run([*ssh, "uptime"], capture_output=True, text=True, check=False).stdout)
    subprocess.run([*ssh, "touch /root/mark; sync"], check=True)
    openstack("server", "rebuild", "--image", "tiny", "--wait", "first", parse=False, timeout=400)
    seen = _until(
        "files:",
        lambda: subprocess.run([*ssh, "echo files: $(ls /root)"], capture_output=True, text=True, check=False).stdout,
    )
    assert "mark" not in seen, "the disk is a fresh one"
    assert str(openstack("server", "show", "first")["addresses"]) == str(server["addresses"])

    events = openstack("server", "event", "list", "first")
    assert {event["Action"] for event in events} == {"create", "reboot", "stop", "start", "rebuild"}
    for words in (
        ("hypervisor", "list"), ("compute", "service", "list"), ("availability", "zone", "list"),
        ("limits", "show", "--absolute"), ("catalog", "list"), ("port", "list"), ("flavor", "list"),
        ("keypair", "list"), ("image", "list"), ("project", "list"), ("user", "list"), ("role", "list"),
    ):  # fmt: skip
        assert openstack(*words), words

    openstack("server", "delete", "--wait", "first", parse=False, timeout=120)
    assert openstack("server", "list") == []
    assert openstack("port", "list") == []
    assert remains.of_guests() == []
    openstack("network", "delete", "blue", parse=False)
    openstack("security", "group", "delete", "reached", parse=False)
    openstack("image", "delete", "tiny", parse=False)


def test_kill_in_the_middle_of_a_boot(cloud: RunningCloud, remains: Remains) -> None:
    """kill -9 at four moments of a boot: after restart the server is ACTIVE, and its delete leaves nothing."""
    admin = cloud.client()
    image_id = admin.upload_image("tiny", GUEST_IMAGE.read_bytes(), disk_format="qcow2")
    flavor_id = admin.flavor()
    for pause_s in (0.05, 0.4, 1.0, 2.5):
        server_id = admin.boot("killed", image_id, flavor_id)
        time.sleep(pause_s)
        cloud.kill()
        cloud.start()
        admin = cloud.client()
        view = admin.wait(server_id, "ACTIVE", timeout_s=180)
        assert view["OS-EXT-STS:power_state"] == 1
        assert len(remains.processes("qemu-system")) == 1
        hypervisor = _hypervisor(cloud)
        assert (hypervisor["vcpus_used"], hypervisor["memory_mb_used"]) == (1, 128)
        assert len(admin.network("GET", f"/ports?device_id={server_id}").json()["ports"]) == 1
        assert admin.compute("DELETE", f"/servers/{server_id}").status_code == 204
        admin.wait_gone(server_id)
        assert remains.of_guests() == []
        hypervisor = _hypervisor(cloud)
        assert (hypervisor["vcpus_used"], hypervisor["memory_mb_used"]) == (0, 0)
        assert admin.network("GET", "/ports").json()["ports"] == []


def test_kill_in_the_middle_of_a_rebuild(cloud: RunningCloud, remains: Remains) -> None:
    """kill -9 at three moments of a rebuild: after restart it is carried to its end, with one guest."""
    admin = cloud.client()
    image_id = admin.upload_image("tiny", GUEST_IMAGE.read_bytes(), disk_format="qcow2")
    server_id = admin.boot("again", image_id, admin.flavor())
    admin.wait(server_id, "ACTIVE", timeout_s=180)
    for moment_s in (0.03, 0.2, 0.6):
        [before] = remains.processes("qemu-system")
        body = {"rebuild": {"imageRef": image_id}}
        admin.compute("POST", f"/servers/{server_id}/action", json=body).raise_for_status()
        time.sleep(moment_s)
        cloud.kill()
        cloud.start()
        admin = cloud.client()
        _until("None", lambda admin=admin: str(admin.server(server_id)["OS-EXT-STS:task_state"]))
        view = admin.server(server_id)
        assert (view["status"], view["OS-EXT-STS:vm_state"]) == ("ACTIVE", "active"), view
        [after] = remains.processes("qemu-system")
        assert after != before, "it is another guest"
        hypervisor = _hypervisor(cloud)
        assert hypervisor["vcpus_used"] == 1 and len(admin.network("GET", "/ports").json()["ports"]) == 1
    admin.compute("DELETE", f"/servers/{server_id}").raise_for_status()
    admin.wait_gone(server_id)
    assert remains.of_guests() == []


def _hypervisor(cloud: RunningCloud) -> dict[str, Any]:
    [only] = (
        cloud.client()
        .http.get("/compute/v2.1/os-hypervisors/detail", headers={"OpenStack-API-Version": "compute 2.53"})
        .json()["hypervisors"]
    )
    view: dict[str, Any] = only
    return view


def test_guests_survive_the_process(cloud: RunningCloud, remains: Remains) -> None:
    """kill -9 with a server at rest: it is the same guest after the restart, and still manageable."""
    admin = cloud.client()
    image_id = admin.upload_image("tiny", GUEST_IMAGE.read_bytes(), disk_format="qcow2")
    server_id = admin.boot("survivor", image_id, admin.flavor())
    admin.wait(server_id, "ACTIVE", timeout_s=180)
    [guest] = remains.processes("qemu-system")
    cloud.kill()
    assert guest in remains.processes("qemu-system")
    cloud.start()
    admin = cloud.client()
    assert admin.server(server_id)["status"] == "ACTIVE"
    assert list(remains.processes("qemu-system")) == [guest]
    admin.compute("POST", f"/servers/{server_id}/action", json={"reboot": {"type": "HARD"}}).raise_for_status()
    admin.wait(server_id, "ACTIVE", timeout_s=120)
    admin.compute("DELETE", f"/servers/{server_id}").raise_for_status()
    admin.wait_gone(server_id)
    assert remains.of_guests() == []


def test_a_guest_killed_behind_our_back_is_noticed(cloud: RunningCloud, remains: Remains) -> None:
    """Within one period the record says what the hypervisor says, and the server can be started again."""
    admin = cloud.client()
    image_id = admin.upload_image("tiny", GUEST_IMAGE.read_bytes(), disk_format="qcow2")
    server_id = admin.boot("victim", image_id, admin.flavor())
    admin.wait(server_id, "ACTIVE", timeout_s=180)
    [guest] = remains.processes("qemu-system")
    subprocess.run(["kill", "-9", str(guest)], check=True)
    admin.wait(server_id, "SHUTOFF", timeout_s=90)
    admin.compute("POST", f"/servers/{server_id}/action", json={"os-start": None}).raise_for_status()
    admin.wait(server_id, "ACTIVE", timeout_s=120)
    admin.compute("DELETE", f"/servers/{server_id}").raise_for_status()
    admin.wait_gone(server_id)
    assert remains.of_guests() == []
