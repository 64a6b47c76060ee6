"""The guest image, booted for real: what a cloud and its user may expect of it.

Each test starts QEMU in a network of its own (see guest_rig). QEMU emulates, so a boot takes some seconds.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.real.guest_rig import ADDRESS, a_guest, a_key

pytestmark = [
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: network namespaces and taps"),
]

REPOSITORY = Path(__file__).resolve().parents[2]
FIRST_ID = "0b6f2a9e-7c1d-4c57-9a55-3f1f6a1b2c3d"


@pytest.fixture(scope="module")
def image() -> Path:
    """The image as `make` builds it."""
    subprocess.run([sys.executable, REPOSITORY / "guest/build.py"], check=True, stdout=subprocess.DEVNULL)
    return (REPOSITORY / "build/guest/kilonova-guest.qcow2").resolve()


def meta_data(key: Path, *, server_id: str = FIRST_ID, name: str = "first") -> str:
    """The config drive's and the metadata service's account of one server, in OpenStack's form."""
    public = key.with_suffix(".pub").read_text()
    return json.dumps(
        {
            "uuid": server_id,
            "name": name,
            "hostname": f"{name}.novalocal",
            "availability_zone": 'zone "one"',
            "meta": {"role": "a\\b"},
            "public_keys": {"my key": public},
            "launch_index": 0,
            "random_seed": "c2VlZA==",
        }
    )


def test_a_server_boots_keeps_its_state_and_stops_when_asked(tmp_path: Path, image: Path) -> None:
    key, strangers_key = a_key(tmp_path), a_key(tmp_path, "strangers")
    files = {
        "openstack/latest/meta_data.json": meta_data(key),
        "openstack/latest/user_data": "#!/bin/bash\necho ran >> /root/ran\necho user data speaks\n",
    }
    answers = {"/openstack/latest/meta_data.json": meta_data(key)}
    with a_guest(tmp_path, image, config_drive=files, answers=answers, disk_gib=20) as guest:
        guest.start()
        guest.wait_for("KILONOVA-GUEST READY")
        said = guest.wait_for("KILONOVA-GUEST metadata service answers")
        assert f"address eth0 {ADDRESS}/24 gateway 10.77.0.1 mtu 1450" in said
        assert f"metadata source config-drive instance-id {FIRST_ID} hostname first keys 1" in said
        assert f"metadata service answers, instance-id {FIRST_ID}" in said
        assert "user data speaks" in said
        assert "root@first:~#" in said

        # The key opens both accounts, and nothing else does.
        assert guest.ssh("id -un", key=key).stdout == "kilonova\n"
        assert guest.ssh("id -un", key=key, user="root").stdout == "root\n"
        assert guest.ssh("true", key=strangers_key).returncode == 255
        assert guest.ssh("true", key=strangers_key, user="root").returncode == 255

        # The disk has grown, the routes of option 121 are there, memory is left over.
        assert int(guest.ssh("df -m / | awk 'NR==2 {print $2}'", key=key).stdout) > 19_000
        assert "169.254.169.254 via 10.77.0.1" in guest.ssh("ip route", key=key).stdout
        assert int(guest.ssh("free -m | awk '/^Mem/ {print $NF}'", key=key).stdout) > 32

        # Nothing in the image itself is writable to the user, and no password opens anything.
        assert guest.ssh("find / -xdev -user kilonova ! -path '/home/kilonova*'", key=key, user="root").stdout == ""
        assert {line.split(":")[1] for line in guest.ssh("cat /etc/shadow", key=key, user="root").stdout.split()} == {
            "*"
        }

        fingerprint = said.partition("KILONOVA-GUEST ssh ")[2].split()[0]
        guest.ssh("echo mine > /home/kilonova/kept", key=key)
        assert guest.stop_softly() < 15
        assert "KILONOVA-GUEST going down" in guest.said()

        # Second start: the same host keys (ssh would refuse others), the user's file, no second run of user data.
        guest.start()
        assert fingerprint in guest.wait_for("KILONOVA-GUEST READY")
        assert guest.ssh("cat kept", key=key).stdout == "mine\n"
        assert guest.ssh("cat /root/ran", key=key, user="root").stdout == "ran\n"

        # The plug is pulled right after a write that was synced, and the disk still boots.
        guest.ssh("echo again > kept; sync", key=key)
        guest.kill()
        guest.start()
        guest.wait_for("KILONOVA-GUEST READY")
        assert guest.ssh("cat kept", key=key).stdout == "again\n"


def test_a_copy_of_a_disk_becomes_another_server(tmp_path: Path, image: Path) -> None:
    former, mine = a_key(tmp_path, "former"), a_key(tmp_path, "mine")
    with a_guest(tmp_path, image, answers={"/openstack/latest/meta_data.json": meta_data(former, name="one")}) as guest:
        guest.start()
        said = guest.wait_for("KILONOVA-GUEST READY")
        assert f"metadata source metadata-service instance-id {FIRST_ID} hostname one keys 1" in said
        assert guest.ssh("true", key=former).returncode == 0
        fingerprint = said.partition("KILONOVA-GUEST ssh ")[2].split()[0]
        guest.stop_softly()
        disk = guest.disk
    (tmp_path / "second").mkdir()
    # Only EC2's form this time, as a service that knows no other would answer.
    answers = {
        "/latest/meta-data/instance-id": "i-00000002",
        "/latest/meta-data/hostname": "two.novalocal",
        "/latest/meta-data/public-keys/": "0=mine",
        "/latest/meta-data/public-keys/0/openssh-key": mine.with_suffix(".pub").read_text(),
        "/latest/user-data": "#!/bin/sh\nhostname > /root/ran-on\n",
    }
    with a_guest(tmp_path / "second", disk, answers=answers) as guest:
        guest.start()
        said = guest.wait_for("KILONOVA-GUEST user data has run")
        assert "metadata source metadata-service instance-id i-00000002 hostname two keys 1" in said
        assert fingerprint not in said
        assert guest.ssh("cat /root/ran-on", key=mine, user="root").stdout == "two\n"
        assert guest.ssh("true", key=former).returncode == 255, "the former server's key still opens its copy"


def test_a_reset_by_the_guest_itself_is_clean(tmp_path: Path, image: Path) -> None:
    key = a_key(tmp_path)
    with a_guest(tmp_path, image, config_drive={"openstack/latest/meta_data.json": meta_data(key)}) as guest:
        guest.start()
        guest.wait_for("KILONOVA-GUEST READY")
        guest.ssh("reboot", key=key, user="root")
        said = guest.wait_for("KILONOVA-GUEST READY", times=2)
        assert said.count("KILONOVA-GUEST going down") == 1
        assert guest.ssh("true", key=key).returncode == 0
