"""The Network API itself: where it lives, its form of errors, and what it says that it can."""

from kilonova.api.http.errors import NEUTRON_ERRORS
from kilonova.api.http.routing import Api, Extension

api = Api(
    "network",
    root="/network/v2.0",
    errors=NEUTRON_ERRORS,
    extensions=(
        Extension("binding", "Port Binding"),
        Extension("external-net", "Neutron external network"),
        Extension("net-mtu", "Network MTU"),
        Extension("port-security", "Port Security"),
        Extension("allowed-address-pairs", "Allowed Address Pairs"),
        Extension("standard-attr-description", "standard-attr-description"),
        Extension("standard-attr-timestamp", "Resource timestamps"),
        Extension("project-id", "project_id field enabled"),
        Extension("pagination", "Pagination support"),
        Extension("sorting", "Sorting support"),
        Extension("quotas", "Quota management support"),
        Extension("security-group", "security-group"),
        Extension("agent", "agent"),
    ),
)
