"""Objects for a service of an older version: the same, without the fields that it does not know.

An object that travels has a ``version``. A field that is added raises its minor number and gets a line in `ADDED`;
`downgrade` leaves out what came later. A field is never taken away or given another meaning within a major version.
"""

from typing import Any, Final

import msgspec

from kilonova.model.guest import GuestSpec
from kilonova.model.host import HostReport
from kilonova.model.network_plans import PortPlan
from kilonova.rpc.versions import parse

ADDED: Final[dict[type[msgspec.Struct], dict[str, tuple[str, ...]]]] = {
    GuestSpec: {
        "1.1": ("flavor_name",),
        "1.2": ("cells", "pci_devices"),
        "1.3": ("build", "replaces", "files"),
    },
    PortPlan: {"1.1": ("admin_up", "allowed_macs"), "1.2": ("rules",)},
    HostReport: {"1.1": ("numa", "pci", "more", "metrics")},
}
"""Object to version to the fields that came with it."""


def downgrade(value: msgspec.Struct, version: str) -> dict[str, Any]:
    """`value` as plain values, in the shape that it had in `version`.

    Raises:
        KeyError: `value` is of a type without history in `ADDED`.
    """
    plain: dict[str, Any] = msgspec.to_builtins(value)
    for added_in, fields in ADDED[type(value)].items():
        if parse(added_in) > parse(version):
            for field in fields:
                plain.pop(field, None)
    plain["version"] = version
    return plain
