"""What a first server stands on: the guest image, some flavors, a key pair, a security group.

What is there is used again.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from kilonova.cli.progress import Step
from kilonova.cli.rest import Rest

IMAGE: Final = "kilonova-guest"
KEY: Final = "first-run"
GROUP: Final = "first-run"
FLAVOR: Final = "m1.nano"
FLAVORS: Final = (
    # name, vCPUs, MiB, GiB
    (FLAVOR, 1, 128, 1),
    ("m1.tiny", 1, 512, 1),
    ("m1.small", 1, 2048, 20),
    ("m1.medium", 2, 4096, 40),
)


@dataclass(frozen=True)
class ImageFile:
    """A guest image as it lies on disk."""

    path: Path
    build: str
    """Names exactly this build, see guest/build.py."""
    size: int

    @classmethod
    def of(cls, path: Path) -> Self:
        """Look at `path`, a file or a link to one."""
        real = path.resolve()
        return cls(real, real.stem, real.stat().st_size)


@dataclass
class Made:
    """What this run has made, to be removed in the opposite order: (service, path of the resource, name)."""

    resources: list[tuple[str, str, str]] = field(default_factory=list)

    @property
    def nothing(self) -> bool:
        """Whether there is nothing to remove."""
        return not self.resources

    def add(self, service: str, path: str, name: str) -> None:
        """Remember one more."""
        self.resources.append((service, path, name))


async def image(rest: Rest, step: Step, file: ImageFile, made: Made) -> str:
    """The id of an active image with exactly these bytes, uploaded if there is none."""
    for found in (await rest.ask("image", "GET", f"/images?name={IMAGE}&status=active"))["images"]:
        if found.get("kilonova_build") == file.build:
            step.say(f"{IMAGE} is there ({found['id']})")
            return str(found["id"])
    record = {
        "name": IMAGE,
        "disk_format": "qcow2",
        "container_format": "bare",
        "visibility": "public",
        "min_ram": 96,
        "min_disk": 1,
        "os_distro": IMAGE,
        "kilonova_build": file.build,
    }
    image_id = str((await rest.ask("image", "POST", "/images", json=record))["id"])
    made.add("image", f"/images/{image_id}", f"image {IMAGE}")
    await rest.upload(image_id, _pieces(file, step))
    step.say(f"{IMAGE} uploaded, {file.size / 1e6:.0f} MB ({image_id})")
    return image_id


async def _pieces(file: ImageFile, step: Step) -> AsyncIterator[bytes]:
    sent = 0
    with file.path.open("rb") as source:
        while piece := await asyncio.to_thread(source.read, 1 << 20):
            yield piece
            sent += len(piece)
            step.say(f"uploading {100 * sent // max(file.size, 1)} %")


async def flavors(rest: Rest, step: Step, made: Made) -> str:
    """The id of the smallest flavor; all of `FLAVORS` are there afterwards."""
    ids = {found["name"]: found["id"] for found in (await rest.ask("compute", "GET", "/flavors"))["flavors"]}
    for name, vcpus, memory_mib, disk_gib in FLAVORS:
        if name not in ids:
            body = {"flavor": {"name": name, "vcpus": vcpus, "ram": memory_mib, "disk": disk_gib}}
            ids[name] = (await rest.ask("compute", "POST", "/flavors", json=body))["flavor"]["id"]
            made.add("compute", f"/flavors/{ids[name]}", f"flavor {name}")
    step.say(", ".join(name for name, *_ in FLAVORS))
    return str(ids[FLAVOR])


async def key_pair(rest: Rest, step: Step, public_key: str, made: Made) -> None:
    """A key pair with this public half; one of the same name with another half is replaced."""
    for entry in (await rest.ask("compute", "GET", "/os-keypairs"))["keypairs"]:
        found = entry["keypair"]
        if found["name"] == KEY:
            if found["public_key"].split()[:2] == public_key.split()[:2]:  # without the comment
                step.say(f"{KEY} is there")
                return
            await rest.ask("compute", "DELETE", f"/os-keypairs/{KEY}")
    await rest.ask("compute", "POST", "/os-keypairs", json={"keypair": {"name": KEY, "public_key": public_key}})
    made.add("compute", f"/os-keypairs/{KEY}", f"key pair {KEY}")
    step.say(f"{KEY}, made here")


async def security_group(rest: Rest, step: Step, made: Made) -> str:
    """The id of a security group into which ssh and ping may come, from everywhere: also from this host."""
    mine = f"project_id={rest.project_id}&name={GROUP}"
    for found in (await rest.ask("network", "GET", f"/security-groups?{mine}"))["security_groups"]:
        step.say(f"{GROUP} is there")
        return str(found["id"])
    body = {"name": GROUP, "description": "ssh and ping from everywhere"}
    answer = await rest.ask("network", "POST", "/security-groups", json={"security_group": body})
    group_id = str(answer["security_group"]["id"])
    made.add("network", f"/security-groups/{group_id}", f"security group {GROUP}")
    for let_in in ({"protocol": "tcp", "port_range_min": 22, "port_range_max": 22}, {"protocol": "icmp"}):
        rule = {"security_group_id": group_id, "direction": "ingress", **let_in}
        await rest.ask("network", "POST", "/security-group-rules", json={"security_group_rule": rule})
    step.say(f"{GROUP}: ssh and ping may come in")
    return group_id
