"""What lies on a config drive, read back by another program than the one that wrote it."""

import base64
import json
import subprocess
from pathlib import Path

import pytest

from kilonova.model.guest import GuestFile, GuestSpec
from kilonova.virt.libvirt import config_drive


def spec(**more: object) -> GuestSpec:
    return GuestSpec(
        server_id="0b2f6c1e-1111-4222-8333-444455556666",
        name="instance-1",
        project_id="p",
        hostname="web",
        vcpus=1,
        memory_mib=64,
        root_gib=1,
        meta_data={"uuid": "0b2f6c1e-1111-4222-8333-444455556666"},
        **more,  # type: ignore[arg-type]
    )


def on_it(drive: Path, path: str) -> bytes:
    command = ["isoinfo", "-R", "-i", str(drive), "-x", path]
    return subprocess.run(command, capture_output=True, check=True).stdout


@pytest.fixture
def drive(tmp_path: Path) -> Path:
    return tmp_path / "config.iso"


def test_metadata_user_data_and_files(drive: Path) -> None:
    script, motd, key = b"#!/bin/sh\necho hi\n", b"hello\n", bytes(range(256))
    files = tuple(
        GuestFile(path=path, contents=base64.b64encode(contents).decode())
        for path, contents in (("/etc/motd", motd), ("/opt/key", key))
    )
    config_drive.make(spec(user_data=base64.b64encode(script).decode(), files=files), drive)
    label = subprocess.run(["isoinfo", "-d", "-i", str(drive)], capture_output=True, text=True, check=True).stdout
    assert "Volume id: config-2" in label
    assert json.loads(on_it(drive, "/openstack/latest/meta_data.json"))["uuid"].startswith("0b2f")
    assert on_it(drive, "/openstack/latest/user_data") == script == on_it(drive, "/ec2/latest/user-data")
    assert on_it(drive, "/openstack/content/0000") == motd
    assert on_it(drive, "/openstack/content/0001") == key
    assert drive.stat().st_mode & 0o777 == 0o600, "it may hold a password"
    assert [path.name for path in drive.parent.iterdir()] == [drive.name], "nothing is left beside it"


def test_without_them(drive: Path) -> None:
    config_drive.make(spec(), drive)
    assert on_it(drive, "/openstack/latest/user_data") == b"" == on_it(drive, "/openstack/content/0000")
