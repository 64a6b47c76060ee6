"""The config drive: a small ISO 9660 disk, labelled config-2, with all that the metadata service would tell."""

import base64
import json
import subprocess
import tempfile
from pathlib import Path

from kilonova.model.errors import HypervisorUnavailable
from kilonova.model.guest import GuestSpec
from kilonova.model.metadata import content_path


def make(spec: GuestSpec, path: Path) -> None:
    """Write the drive of `spec` to `path`.

    Raises:
        HypervisorUnavailable: genisoimage is not there or fails.
    """
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".config-") as name:
        root = Path(name)
        latest = root / "openstack" / "latest"
        ec2 = root / "ec2" / "latest"
        for directory in (latest, ec2):
            directory.mkdir(parents=True)
        (latest / "meta_data.json").write_text(json.dumps(spec.meta_data))
        (latest / "network_data.json").write_text(json.dumps(spec.network_data))
        (ec2 / "meta-data.json").write_text(json.dumps({"instance-id": spec.server_id, "hostname": spec.hostname}))
        for number, file in enumerate(spec.files):
            contents = root / "openstack" / content_path(number).lstrip("/")
            contents.parent.mkdir(exist_ok=True)
            contents.write_bytes(base64.b64decode(file.contents))
        if spec.user_data:
            data = base64.b64decode(spec.user_data)
            (latest / "user_data").write_bytes(data)
            (ec2 / "user-data").write_bytes(data)
        command = ["genisoimage", "-quiet", "-o", str(path), "-ldots", "-allow-lowercase", "-allow-multidot"]
        command += ["-l", "-J", "-r", "-V", "config-2", str(root)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        except (FileNotFoundError, subprocess.TimeoutExpired) as error:
            raise HypervisorUnavailable(f"genisoimage cannot make the config drive: {error}.") from None
        if done.returncode != 0:
            raise HypervisorUnavailable(f"genisoimage cannot make the config drive: {done.stderr.strip()[:300]}")
    path.chmod(0o600)  # libvirt gives it to the user that QEMU runs as; it may hold a password
