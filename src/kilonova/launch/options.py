"""What `kilonova up` can be told."""

from dataclasses import dataclass
from typing import ClassVar, Literal


@dataclass(frozen=True, kw_only=True)
class UpOptions:
    """``[up]`` of kilonova.conf; the command line wins over it."""

    section: ClassVar[str] = "up"

    listen: str = "127.0.0.1:8774"
    """Address and port of the API. Loopback unless told otherwise."""

    public_url: str = ""
    """How clients reach the API, if not by the address that they ask at; goes into the catalogue."""

    virt: Literal["auto", "libvirt", "fake"] = "auto"
    """Which hypervisor driver: ``auto`` takes libvirt where it is installed."""

    hosts: int = 1
    """Simulated hosts, with ``virt = fake``."""

    host_name: str = ""
    """Name of this machine in the cloud; its own host name, if empty."""

    region: str = "RegionOne"
    """Region name in the catalogue."""
