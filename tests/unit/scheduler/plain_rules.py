"""The rules of the filters once more, read plainly and host by host. Knows nothing of tables and masks."""

import ipaddress
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from kilonova.model.host import AggregateState, HostState
from kilonova.model.request_spec import RequestSpec


@dataclass
class Plain:
    """Options, as the tests set them."""

    zone: str = "nova"
    max_io_ops: int = 3
    max_instances: int = 4
    isolated_hosts: tuple[str, ...] = ("h0", "h2")
    isolated_images: tuple[str, ...] = ("image-1",)
    restrict: bool = True
    namespace: str = ""
    architecture: str = ""
    metrics: tuple[str, ...] = ("cpu", "net")
    extra: dict[str, Any] = field(default_factory=dict)


Rule = Callable[[HostState, Sequence[AggregateState], RequestSpec, Plain], bool]


def _metadata(aggregates: Sequence[AggregateState]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for aggregate in aggregates:
        for key, value in aggregate.metadata.items():
            found.setdefault(key, set()).update(piece.strip() for piece in value.split(","))
    return found


def _number(aggregates: Sequence[AggregateState], key: str, default: float) -> float:
    values = [a.metadata[key] for a in aggregates if key in a.metadata]
    try:
        numbers = [float(value) for value in values]
    except ValueError:
        return default
    if not all(math.isfinite(number) for number in numbers):
        return default
    return min(numbers) if numbers else default


def _limit(aggregates: Sequence[AggregateState], key: str, default: int) -> float:
    number = _number(aggregates, key, default)
    values = [a.metadata[key] for a in aggregates if key in a.metadata]
    return number if all("." not in value for value in values) else default


def all_hosts(host: HostState, aggregates: Sequence[AggregateState], spec: RequestSpec, o: Plain) -> bool:
    return True


def compute(host: HostState, aggregates: Sequence[AggregateState], spec: RequestSpec, o: Plain) -> bool:
    return host.is_up and host.is_enabled


def zone(host: HostState, aggregates: Sequence[AggregateState], spec: RequestSpec, o: Plain) -> bool:
    if not spec.availability_zone:
        return True
    zones = _metadata(aggregates).get("availability_zone")
    if zones is None:
        return spec.availability_zone == o.zone
    return spec.availability_zone in zones


def _fits(total: int, reserved: int, ratio: float, used: int, wanted: int) -> bool:
    if wanted == 0:
        return True
    return wanted <= total and used + wanted <= (total - reserved) * ratio


def core(host: HostState, aggregates: Sequence[AggregateState], spec: RequestSpec, o: Plain) -> bool:
    return _fits(host.vcpus, host.vcpus_reserved, host.vcpus_ratio, host.vcpus_used, spec.vcpus)


def ram(host: HostState, aggregates: Sequence[AggregateState], spec: RequestSpec, o: Plain) -> bool:
    return _fits(host.memory_mib, host.memory_reserved_mib, host.memory_ratio, host.memory_used_mib, spec.memory_mib)


def disk(host: HostState, aggregates: Sequence[AggregateState], spec: RequestSpec, o: Plain) -> bool:
    wanted = spec.root_gib + spec.ephemeral_gib + math.ceil(spec.swap_mib / 1024)
    return _fits(host.disk_gib, host.disk_reserved_gib, host.disk_ratio, host.disk_used_gib, wanted)


def aggregate_core(host: HostState, aggregates: Sequence[AggregateState], spec: RequestSpec, o: Plain) -> bool:
    ratio = _number(aggregates, "cpu_allocation_ratio", host.vcpus_ratio)
    return _fits(host.vcpus, host.vcpus_reserved, ratio, host.vcpus_used, spec.vcpus)


def aggregate_ram(host: HostState, aggregates: Sequence[AggregateState], spec: RequestSpec, o: Plain) -> bool:
    ratio = _number(aggregates, "ram_allocation_ratio", host.memory_ratio)
    return _fits(host.memory_mib, host.memory_reserved_mib, ratio, host.memory_used_mib, spec.memory_mib)


def aggregate_disk(host: HostState, aggregates: Sequence[AggregateState], spec: RequestSpec, o: Plain) -> bool:
    ratio = _number(aggregates, "disk_allocation_ratio", host.disk_ratio)
    wanted = spec.root_gib + spec.ephemeral_gib + math.ceil(spec.swap_mib / 1024)
    return _fits(host.disk_gib, host.disk_reserved_gib, ratio, host.disk_used_gib, wanted)


def exact_core(host: HostState, aggregates: Sequence[AggregateState], spec: RequestSpec, o: Plain) -> bool:
    return host.vcpus - host.vcpus_reserved - host.vcpus_used == spec.vcpus


def exact_ram(host: HostState, aggregates: Sequence[AggregateState], spec: RequestSpec, o: Plain) -> bool:
    return host.memory_mib - host.memory_reserved_mib - host.memory_used_mib == spec.memory_mib


def exact_disk(host: HostState, aggregates: Sequence[AggregateState], spec: RequestSpec, o: Plain) -> bool:
    return host.disk_gib - host.disk_reserved_gib - host.disk_used_gib == spec.disk_gib


def num_instances(host: HostState, aggregates: Sequence[AggregateState], spec: RequestSpec, o: Plain) -> bool:
    return host.num_instances < o.max_instances


def aggregate_num_instances(host: HostState, aggregates: Sequence[AggregateState], spec: RequestSpec, o: Plain) -> bool:
    return host.num_instances < _limit(aggregates, "max_instances_per_host", o.max_instances)


def io_ops(host: HostState, aggregates: Sequence[AggregateState], spec: RequestSpec, o: Plain) -> bool:
    return host.io_ops < o.max_io_ops


def aggregate_io_ops(host: HostState, aggregates: Sequence[AggregateState], spec: RequestSpec, o: Plain) -> bool:
    return host.io_ops < _limit(aggregates, "max_io_ops_per_host", o.max_io_ops)


def isolated(host: HostState, aggregates: Sequence[AggregateState], spec: RequestSpec, o: Plain) -> bool:
    of_host, of_image = host.name in o.isolated_hosts, spec.image_id in o.isolated_images
    if of_image:
        return of_host
    return not (of_host and o.restrict)


def tenant(host: HostState, aggregates: Sequence[AggregateState], spec: RequestSpec, o: Plain) -> bool:
    named = {
        value for key, values in _metadata(aggregates).items() if key.startswith("filter_tenant_id") for value in values
    }
    return not named or spec.project_id in named


def image_isolation(host: HostState, aggregates: Sequence[AggregateState], spec: RequestSpec, o: Plain) -> bool:
    for key, options in _metadata(aggregates).items():
        if o.namespace and not key.startswith(f"{o.namespace}."):
            continue
        value = spec.image_properties.get(key)
        if value and str(value) not in options:
            return False
    return True


def _matches(value: str, requirement: str) -> bool:
    """Only the operators that the tests draw; the others have examples of their own."""
    words = requirement.split()
    match words:
        case [">=", number]:
            try:
                return float(value) >= float(number)
            except ValueError:
                return False
        case ["s!=", text]:
            return value != text
        case ["<in>", text]:
            return text in value
        case ["<or>", first, "<or>", second]:
            return value in (first, second)
        case _:
            return value == requirement


def extra_specs(host: HostState, aggregates: Sequence[AggregateState], spec: RequestSpec, o: Plain) -> bool:
    metadata = _metadata(aggregates)
    for key, requirement in spec.extra_specs.items():
        if ":" in key:
            scope, rest = key.split(":", 1)
            if scope != "aggregate_instance_extra_specs":
                continue
            key = rest
        if not any(_matches(value, requirement) for value in metadata.get(key, set())):
            return False
    return True


def type_affinity_of_aggregates(
    host: HostState, aggregates: Sequence[AggregateState], spec: RequestSpec, o: Plain
) -> bool:
    listed = _metadata(aggregates).get("instance_type")
    return listed is None or spec.flavor_name in listed


def type_affinity(host: HostState, aggregates: Sequence[AggregateState], spec: RequestSpec, o: Plain) -> bool:
    return all(flavor == spec.flavor_name for flavor in host.server_flavors)


def trusted(host: HostState, aggregates: Sequence[AggregateState], spec: RequestSpec, o: Plain) -> bool:
    wanted = spec.extra_specs.get("trust:trusted_host")
    return not wanted or host.capabilities.get("trust_lvl", "unknown") == wanted


def metrics(host: HostState, aggregates: Sequence[AggregateState], spec: RequestSpec, o: Plain) -> bool:
    return all(name in host.metrics for name in o.metrics)


def retry(host: HostState, aggregates: Sequence[AggregateState], spec: RequestSpec, o: Plain) -> bool:
    return host.name not in spec.excluded_hosts


def same_host(host: HostState, aggregates: Sequence[AggregateState], spec: RequestSpec, o: Plain) -> bool:
    named = spec.scheduler_hints.get("same_host")
    if not named:
        return True
    servers = [named] if isinstance(named, str) else named
    return any(spec.hosts_of_servers.get(server) == host.name for server in servers)


def different_host(host: HostState, aggregates: Sequence[AggregateState], spec: RequestSpec, o: Plain) -> bool:
    named = spec.scheduler_hints.get("different_host") or []
    servers = [named] if isinstance(named, str) else named
    return all(spec.hosts_of_servers.get(server) != host.name for server in servers)


def _members(host: HostState, spec: RequestSpec) -> int:
    assert spec.group is not None
    return sum(1 for where in spec.group.members.values() if where == host.name)


def group_affinity(host: HostState, aggregates: Sequence[AggregateState], spec: RequestSpec, o: Plain) -> bool:
    if spec.group is None or spec.group.policy != "affinity" or not spec.group.members:
        return True
    return _members(host, spec) > 0


def group_anti_affinity(host: HostState, aggregates: Sequence[AggregateState], spec: RequestSpec, o: Plain) -> bool:
    if spec.group is None or spec.group.policy != "anti-affinity":
        return True
    return _members(host, spec) < spec.group.max_server_per_host


def cidr(host: HostState, aggregates: Sequence[AggregateState], spec: RequestSpec, o: Plain) -> bool:
    near = spec.scheduler_hints.get("build_near_host_ip")
    if not near:
        return True
    bits = spec.scheduler_hints.get("cidr", "/24")
    try:
        return ipaddress.ip_address(host.host_ip) in ipaddress.ip_network(f"{near}{bits}", strict=False)
    except ValueError:
        return False


def query(host: HostState, aggregates: Sequence[AggregateState], spec: RequestSpec, o: Plain) -> bool:
    text = spec.scheduler_hints.get("query")
    if not text:
        return True
    free = int((host.memory_mib - host.memory_reserved_mib) * host.memory_ratio) - host.memory_used_mib
    names = {"$free_ram_mb": free, "$num_io_ops": host.io_ops, "$host": host.name}

    def ask(part: Any) -> Any:
        if not isinstance(part, list):
            return names.get(part, None if str(part).startswith("$") else part)
        arguments = [value for value in map(ask, part[1:]) if value is not None]
        match part[0]:
            case "and":
                return all(arguments)
            case "or":
                return any(arguments)
            case "not":
                return not any(arguments)
            case ">=":
                return len(arguments) > 1 and all(arguments[0] >= other for other in arguments[1:])
            case "=":
                return len(arguments) > 1 and all(arguments[0] == other for other in arguments[1:])
            case "in":
                return len(arguments) > 1 and arguments[0] in arguments[1:]
        raise AssertionError(part)

    return bool(ask(json.loads(text)))


def image_properties(host: HostState, aggregates: Sequence[AggregateState], spec: RequestSpec, o: Plain) -> bool:
    given = spec.image_properties
    arch = given.get("hw_architecture") or given.get("architecture") or o.architecture
    arch = {"amd64": "x86_64", "i386": "i686", "arm64": "aarch64"}.get(arch.lower(), arch.lower())
    kind = (given.get("img_hv_type") or "").lower()
    mode = {"hv": "hvm", "pv": "xen"}.get((given.get("hw_vm_mode") or "").lower(), given.get("hw_vm_mode") or "")
    if not (arch or kind or mode):
        return True
    wanted = given.get("img_hv_requested_version") or ""
    version = (host.hypervisor_version // 1_000_000, host.hypervisor_version // 1000 % 1000)
    if wanted == ">=8.2" and version < (8, 2):
        return False
    if wanted == "nonsense":
        return False
    return any(
        arch in ("", triple[0]) and kind in ("", triple[1]) and mode in ("", triple[2])
        for triple in host.supported_instances
    )


def capabilities(host: HostState, aggregates: Sequence[AggregateState], spec: RequestSpec, o: Plain) -> bool:
    own = {"hypervisor_type": host.hypervisor_type, "num_instances": host.num_instances, "host": host.name}
    for key, requirement in spec.extra_specs.items():
        parts = key.split(":")
        if len(parts) == 1 and parts[0] not in own and parts[0] not in host.capabilities:
            continue
        if len(parts) > 1 and parts[0] != "capabilities":
            continue
        path = parts[1:] if len(parts) > 1 else parts
        value: Any = own.get(path[0], host.capabilities.get(path[0]))
        for step in path[1:]:
            value = value.get(step) if isinstance(value, dict) else None
        if value is None or not _matches(str(value), requirement):
            return False
    return True


RULES: dict[str, Rule] = {
    "AllHostsFilter": all_hosts,
    "ImagePropertiesFilter": image_properties,
    "AvailabilityZoneFilter": zone,
    "ComputeCapabilitiesFilter": capabilities,
    "AggregateInstanceExtraSpecsFilter": extra_specs,
    "ComputeFilter": compute,
    "AggregateCoreFilter": aggregate_core,
    "IsolatedHostsFilter": isolated,
    "JsonFilter": query,
    "AggregateRamFilter": aggregate_ram,
    "AggregateDiskFilter": aggregate_disk,
    "NumInstancesFilter": num_instances,
    "AggregateNumInstancesFilter": aggregate_num_instances,
    "IoOpsFilter": io_ops,
    "AggregateIoOpsFilter": aggregate_io_ops,
    "SimpleCIDRAffinityFilter": cidr,
    "DifferentHostFilter": different_host,
    "SameHostFilter": same_host,
    "RetryFilter": retry,
    "AggregateTypeAffinityFilter": type_affinity_of_aggregates,
    "ServerGroupAntiAffinityFilter": group_anti_affinity,
    "ServerGroupAffinityFilter": group_affinity,
    "AggregateMultiTenancyIsolation": tenant,
    "AggregateImagePropertiesIsolation": image_isolation,
    "MetricsFilter": metrics,
    "CoreFilter": core,
    "RamFilter": ram,
    "DiskFilter": disk,
    "ExactCoreFilter": exact_core,
    "ExactRamFilter": exact_ram,
    "ExactDiskFilter": exact_disk,
    "TrustedFilter": trusted,
    "TypeAffinityFilter": type_affinity,
}
"""Without those of devices, which have a test of their own."""
