"""The rules of the Network API, by Neutron's names."""

from kilonova.base.policy import Default

ADMIN = "rule:context_is_admin"
MEMBER = "rule:context_is_admin or (role:member and project_id:%(project_id)s)"
READER = "rule:context_is_admin or (role:reader and project_id:%(project_id)s)"

DEFAULTS: tuple[Default, ...] = (
    Default("context_is_admin", "role:admin", "Who is an administrator."),
    *(
        Default(f"{verb}_{thing}", MEMBER if verb != "get" else READER)
        for thing in ("network", "subnet", "port", "security_group", "security_group_rule")
        for verb in ("create", "update", "delete", "get")
    ),
    Default("get_agent", ADMIN, "See the network agents of hosts."),
    Default("create_network:shared", ADMIN, "Make a network that all projects see."),
    Default("update_network:shared", ADMIN, "Share a network with all projects."),
    Default("create_network:router:external", ADMIN, "Make a network external."),
    Default("create_port:binding:host_id", ADMIN, "Bind a port to a host."),
    Default("update_port:binding:host_id", ADMIN, "Bind a port to another host."),
    *(
        Default(f"{verb}_port:{field}", MEMBER, f"{what} Checked on the network's project, not on the port's.")
        for verb in ("create", "update")
        for field, what in (
            ("allowed_address_pairs", "Let a port speak with more addresses."),
            ("port_security_enabled", "Switch off what keeps a port from speaking in others' names."),
        )
    ),
    Default("get_port:binding:host_id", ADMIN, "See the host of a port."),
    Default("create_port:mac_address", MEMBER, "Choose a port's MAC."),
)
