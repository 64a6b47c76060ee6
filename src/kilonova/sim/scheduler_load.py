"""A cloud and its users, made up: hosts, aggregates, a mixed stream of requests, and an account of what was given away.

Flavors from 1 to 16 CPUs, zones or none, images with and without properties, projects with hosts of their own,
server groups, hints, extra specs. All of it comes from one seeded source of chance.
"""

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from kilonova.model.host import AggregateState, HostState, PciPool
from kilonova.model.request_spec import RequestSpec, ServerGroup

ZONES, RACKS = 4, 40


def hosts_of(count: int, rng: random.Random) -> tuple[list[HostState], list[AggregateState]]:
    """A cloud of three sizes of hosts in four zones and forty racks, a third full; some with SSD, GPU, old CPUs."""
    states = []
    members: dict[str, list[str]] = {}
    for n in range(count):
        name = f"host-{n:06d}"
        vcpus, memory, disk = rng.choice([(64, 262144, 4000), (96, 393216, 8000), (128, 524288, 8000)])
        load = rng.random() * 0.66
        zone, kinds = f"az{n % ZONES + 1}", []
        if n % 3 == 0:
            kinds.append("ssd")
        if n % 20 == 0:
            kinds.append("gpu")
        if n % 50 == 0:
            kinds.append("tenant")
        if n % 10 == 0:
            kinds.append("windows")
        for aggregate in (zone, f"rack{n % RACKS:02d}", *kinds):
            members.setdefault(aggregate, []).append(name)
        states.append(
            HostState(
                seq=n + 1,
                id=n + 1,
                uuid=f"00000000-0000-4000-8000-{n:012d}",
                name=name,
                is_enabled=rng.random() > 0.005,
                is_up=rng.random() > 0.005,
                vcpus=vcpus,
                vcpus_reserved=2,
                vcpus_ratio=4.0,
                vcpus_used=int(vcpus * 4 * load),
                memory_mib=memory,
                memory_reserved_mib=4096,
                memory_ratio=1.0,
                memory_used_mib=int(memory * load),
                disk_gib=disk,
                disk_reserved_gib=50,
                disk_ratio=1.0,
                disk_used_gib=int(disk * load),
                num_instances=int(40 * load),
                io_ops=rng.choice([0, 0, 0, 0, 1, 2]),
                failed_builds=1 if rng.random() < 0.01 else 0,
                arch="x86_64" if n % 25 else "aarch64",
                hypervisor_type="QEMU",
                hypervisor_version=rng.choice([7_002_000, 8_002_000]),
                vm_mode="hvm",
                supported_instances=((("x86_64" if n % 25 else "aarch64"), "kvm", "hvm"),),
                capabilities={"generation": str(n % 3)},
                traits=("HW_CPU_X86_AVX2",) if n % 4 else ("HW_CPU_X86_AVX2", "HW_CPU_X86_AVX512F"),
                host_ip=f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}",
                metrics={"cpu.percent": round(load, 2)},
                pci=(PciPool(vendor_id="10de", product_id="1db4", free=4),) if "gpu" in kinds else (),
            )
        )
    metadata: dict[str, dict[str, str]] = {f"az{z + 1}": {"availability_zone": f"az{z + 1}"} for z in range(ZONES)}
    metadata |= {
        "ssd": {"ssd": "true"},
        "gpu": {"gpu": "true"},
        "tenant": {"filter_tenant_id": "project-0001"},
        "windows": {"os_type": "windows"},
    }
    aggregates = [
        AggregateState(id=number, name=name, hosts=tuple(names), metadata=metadata.get(name, {"rack": name}))
        for number, (name, names) in enumerate(sorted(members.items()), start=1)
    ]
    return states, aggregates


FLAVORS = ((1, 2048, 20), (2, 4096, 40), (2, 8192, 40), (4, 8192, 80), (8, 16384, 160), (16, 65536, 320))
IMAGES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("image-plain", {}),
    ("image-linux", {"hw_architecture": "x86_64", "os_type": "linux"}),
    ("image-uefi", {"hw_architecture": "x86_64", "img_hv_type": "kvm", "hw_machine_type": "q35"}),
    ("image-arm", {"hw_architecture": "aarch64"}),
    ("image-windows", {"os_type": "windows"}),
)


def requests_of(count: int, rng: random.Random, names: Sequence[str]) -> list[RequestSpec]:
    """A mixed stream: nine tenths differ in flavor, image, zone and project; the rest ask for something special."""
    specs = []
    for n in range(count):
        number = rng.randrange(len(FLAVORS))
        vcpus, memory, disk = FLAVORS[number]
        image, properties = rng.choices(IMAGES, weights=(40, 30, 20, 5, 5))[0]
        values: dict[str, Any] = {
            "server_ids": (f"00000000-0000-4000-9000-{n:012d}",),
            "project_id": f"project-{rng.randrange(100):04d}",
            "flavor_name": f"m1.{number}",
            "flavor_id": str(number),
            "vcpus": vcpus,
            "memory_mib": memory,
            "root_gib": disk,
            "image_id": image,
            "image_properties": properties,
            "availability_zone": rng.choice([None, None, "az1", "az2", "az3", "az4"]),
        }
        match rng.randrange(40):
            case 0:
                values["group"] = ServerGroup(
                    id=f"group-{rng.randrange(50)}",
                    policy=rng.choice(["anti-affinity", "soft-anti-affinity", "soft-affinity"]),
                    members={f"member-{m}": rng.choice(names) for m in range(3)},
                )
            case 1:
                values["extra_specs"] = {"aggregate_instance_extra_specs:ssd": "true"}
            case 2:
                values["extra_specs"] = {"capabilities:generation": "<in> 2", "trait:HW_CPU_X86_AVX512F": "required"}
            case 3:
                values["scheduler_hints"] = {"different_host": ["server-1"]}
                values["hosts_of_servers"] = {"server-1": rng.choice(names)}
            case 4 if rng.random() < 0.2:
                values["extra_specs"] = {"pci_passthrough:alias": "gpu:1"}
            case 5 if rng.random() < 0.2:
                values["excluded_hosts"] = (rng.choice(names),)
            case _:
                pass
        specs.append(RequestSpec(**values))
    return specs


@dataclass
class Account:
    """What hosts have and what was given away, kept with plain numbers apart from the scheduler."""

    states: dict[str, HostState]
    double_booked: int = 0
    _placed: deque[tuple[str, str, RequestSpec]] = field(default_factory=deque)
    _seq: int = 0

    def __post_init__(self) -> None:
        self._seq = max(state.seq for state in self.states.values())

    def give(self, server_id: str, host: str, spec: RequestSpec) -> None:
        """A server was chosen for a host; the claim follows at once."""
        state = self._changed(host, spec, 1)
        self.double_booked += (
            state.vcpus_used > (state.vcpus - state.vcpus_reserved) * state.vcpus_ratio
            or state.memory_used_mib > state.memory_mib - state.memory_reserved_mib
            or state.disk_used_gib > state.disk_gib - state.disk_reserved_gib
        )
        self._placed.append((server_id, host, spec))

    def _changed(self, host: str, spec: RequestSpec, sign: int) -> HostState:
        state = self.states[host]
        self._seq += 1
        after = msgspec.structs.replace(
            state,
            seq=self._seq,
            vcpus_used=state.vcpus_used + sign * spec.vcpus,
            memory_used_mib=state.memory_used_mib + sign * spec.memory_mib,
            disk_used_gib=state.disk_used_gib + sign * spec.disk_gib,
            num_instances=state.num_instances + sign,
        )
        self.states[host] = after
        return after

    def page(self, since: int) -> tuple[list[HostState], list[str]]:
        """The next page of the feed: rows that changed, and the servers whose claims are in them."""
        claimed = [server_id for server_id, _, _ in self._placed]
        touched = {host for _, host, _ in self._placed}
        while len(self._placed) > 2_000:  # the oldest servers end
            _, host, spec = self._placed.popleft()
            self._changed(host, spec, -1)
            touched.add(host)
        return [self.states[host] for host in touched if self.states[host].seq > since], claimed
