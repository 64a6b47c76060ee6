"""What a process can be told about its place in the cloud."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from kilonova.base.config import reloadable


@dataclass(frozen=True, kw_only=True)
class UpOptions:
    """``[up]`` of kilonova.conf: the whole cloud in one process. The command line wins over it."""

    section: ClassVar[str] = "up"

    listen: str = "127.0.0.1:8774"
    """Address and port of the API. Loopback unless told otherwise."""

    virt: Literal["auto", "libvirt", "fake"] = "auto"
    """Which hypervisor driver: ``auto`` takes libvirt where it is installed."""

    hosts: int = 1
    """Simulated hosts, with ``virt = fake``."""

    host_name: str = ""
    """Name of this machine in the cloud; its own host name, if empty."""


@dataclass(frozen=True, kw_only=True)
class DeploymentOptions:
    """``[DEFAULT]`` of kilonova.conf: one of several processes of a cloud, see ``kilonova service``."""

    section: ClassVar[str] = "DEFAULT"

    host: str = ""
    """Name of this machine in the cloud, different on each; its own host name, if empty."""

    roles: tuple[str, ...] = ("control", "compute")
    """What runs on this machine: ``control`` is api, conductor and scheduler, ``compute`` is compute and network."""

    transport_url: str = ""
    """The queue: ``amqp://USER:PASSWORD@HOST:5672/VHOST`` (RabbitMQ), ``nats://HOST:4222``, or ``memory://`` where all
    services are in one process."""

    state_path: str = "/var/lib/kilonova"
    """Where this machine keeps what is its own: images, disks, secrets, logs."""

    log_dir: str = ""
    """Where logs go; ``logs`` below `state_path`, if empty."""

    debug: bool = reloadable(False)
    """Log more."""

    api_url: str = "http://127.0.0.1:8774"
    """Where agents reach the API: they fetch images there, and answers for guests that ask for their metadata."""


@dataclass(frozen=True, kw_only=True)
class DatabaseOptions:
    """``[database]`` of kilonova.conf. Agents need none."""

    section: ClassVar[str] = "database"

    connection: str = ""
    """The database: ``postgresql+psycopg://USER:PASSWORD@HOST/NAME``, ``mysql+pymysql://USER:PASSWORD@HOST/NAME``, or
    ``sqlite:///PATH``. Empty: SQLite below the state directory."""


@dataclass(frozen=True, kw_only=True)
class ApiOptions:
    """``[api]`` of kilonova.conf."""

    section: ClassVar[str] = "api"

    listen: str = "127.0.0.1:8774"
    """Address and port of ``kilonova service api``. Loopback unless told otherwise."""

    region: str = "RegionOne"
    """Region name in the catalogue."""


@dataclass(frozen=True, kw_only=True)
class ComputeServiceOptions:
    """``[compute]`` of kilonova.conf."""

    section: ClassVar[str] = "compute"

    virt: Literal["auto", "libvirt", "fake"] = "auto"
    """Which hypervisor driver: ``auto`` takes libvirt where it is installed."""

    simulated_hosts: int = 1
    """Hosts of one process, with ``virt = fake``: HOST-0001, HOST-0002 and so on, if there are several."""
