"""Security groups: what may come to a project's ports, and what may leave them."""

import uuid
from datetime import datetime

import msgspec

_NAMESPACE = uuid.UUID("5b2c3c1e-6a0f-4b0e-9c0d-3f6f1f0a7d51")


class SecurityGroupRule(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of traffic that is let through; all else is not. None is any."""

    id: str
    group_id: str
    project_id: str
    direction: str
    """``ingress``: to the port; ``egress``: from it."""
    ethertype: str = "IPv4"
    protocol: str | None = None
    """``tcp``, ``udp``, ``icmp``, or a number as text."""
    port_min: int | None = None
    """For ICMP: the type."""
    port_max: int | None = None
    """For ICMP: the code."""
    remote_cidr: str | None = None
    remote_group_id: str | None = None
    description: str = ""
    created_at: datetime


class SecurityGroup(msgspec.Struct, frozen=True, kw_only=True):
    """A group of ports that have the same rules."""

    id: str
    project_id: str
    name: str
    description: str = ""
    rules: tuple[SecurityGroupRule, ...] = ()
    created_at: datetime
    updated_at: datetime

    @property
    def is_default(self) -> bool:
        """Whether it is the one that ports of its project have when nothing else is said."""
        return self.id == default_id(self.project_id)


def default_id(project_id: str) -> str:
    """The id of a project's default group: always the same, so that two who make it make one."""
    return str(uuid.uuid5(_NAMESPACE, project_id))


def default_rules(group_id: str, project_id: str) -> list[dict[str, str | None]]:
    """The rules that a default group begins with: from one another in, everywhere out."""
    return [
        {
            "id": str(uuid.uuid5(_NAMESPACE, f"{group_id} {direction} {ethertype}")),
            "group_id": group_id,
            "project_id": project_id,
            "direction": direction,
            "ethertype": ethertype,
            "remote_group_id": group_id if direction == "ingress" else None,
        }
        for direction in ("ingress", "egress")
        for ethertype in ("IPv4", "IPv6")
    ]
