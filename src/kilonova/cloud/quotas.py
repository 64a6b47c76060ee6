"""Default limits, as the operator sets them."""

from dataclasses import asdict, dataclass
from typing import ClassVar


@dataclass(frozen=True, kw_only=True)
class QuotaOptions:
    """``[quota]`` of kilonova.conf: limits of every project (and user, for key pairs); -1 is none."""

    section: ClassVar[str] = "quota"

    instances: int = 10
    """Servers of one project."""

    cores: int = 20
    """Virtual CPUs of one project."""

    ram: int = 51200
    """Memory of one project, in MiB."""

    metadata_items: int = 128
    """Metadata items of one server."""

    key_pairs: int = 100
    """Key pairs of one user."""

    server_groups: int = 10
    """Server groups of one project."""

    server_group_members: int = 10
    """Servers in one group."""

    network: int = 100
    """Networks of one project."""

    subnet: int = 100
    """Subnets of one project."""

    port: int = 500
    """Ports of one project."""

    security_group: int = 10
    """Security groups of one project, besides its default one."""

    security_group_rule: int = 100
    """Security group rules of one project, besides those that groups begin with."""

    def limits(self) -> dict[str, int]:
        """Resource to limit."""
        return asdict(self)
