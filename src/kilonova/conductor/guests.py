"""From a server's rows to what its host must know: the `GuestSpec`."""

from collections.abc import Sequence

from kilonova.model.guest import CellPlan, GuestSpec, ImageRef, Nic
from kilonova.model.metadata import InstanceFacts, meta_data_json, network_data_json
from kilonova.model.network_plans import PortPlan
from kilonova.model.server import Server


def guest_spec(
    server: Server,
    *,
    image: ImageRef | None,
    ports: Sequence[PortPlan],
    facts: InstanceFacts,
    admin_password: str,
    power_on: bool = True,
    cells: Sequence[CellPlan] = (),
    pci_devices: Sequence[str] = (),
    build: str = "",
    replaces: bool = False,
) -> GuestSpec:
    """The guest of `server`, complete."""
    flavor = server.flavor
    nics: tuple[Nic, ...] = tuple(plan.nic for plan in ports)
    meta_data = meta_data_json(facts)
    if admin_password:
        meta_data["admin_pass"] = admin_password
    return GuestSpec(
        server_id=server.id,
        name=server.guest_name,
        display_name=server.name,
        project_id=server.project_id,
        user_id=server.user_id,
        hostname=server.hostname,
        vcpus=flavor.vcpus,
        memory_mib=flavor.memory_mib,
        root_gib=flavor.root_gib,
        ephemeral_gib=flavor.ephemeral_gib,
        swap_mib=flavor.swap_mib,
        image=image,
        nics=nics,
        config_drive=server.config_drive,
        user_data=server.user_data or "",
        meta_data=meta_data,
        network_data=network_data_json(facts),
        admin_password=admin_password,
        extra_specs=flavor.extra_specs,
        flavor_name=flavor.name,
        power_on=power_on,
        cells=tuple(cells),
        pci_devices=tuple(pci_devices),
        build=build,
        replaces=replaces,
        files=facts.files,
    )
