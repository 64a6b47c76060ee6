"""What an operator can tune about images."""

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """``[image]`` of kilonova.conf."""

    section: ClassVar[str] = "image"

    image_size_cap: int = 1024**4
    """The largest image that is taken, in bytes."""

    virtual_size_cap_gib: int = 65536
    """The largest disk that an image may unfold to, in GiB; a few kilobytes of qcow2 can describe a huge one."""

    keep_free_mib: int = 512
    """An upload ends when less than this is free where images are kept, in MiB: the database may live there too."""

    disk_formats: tuple[str, ...] = ("ami", "ari", "aki", "vhd", "vhdx", "vmdk", "raw", "qcow2", "vdi", "iso", "ploop")
    """Disk formats that can be declared."""

    container_formats: tuple[str, ...] = ("ami", "ari", "aki", "bare", "ovf", "ova", "docker", "compressed")
    """Container formats that can be declared. The bytes of an image in a container are kept as they are."""

    image_property_quota: int = 128
    """Properties of its own that one image can have; -1 is no limit."""

    image_tag_quota: int = 128
    """Tags of one image; -1 is no limit."""

    image_member_quota: int = 128
    """Projects that one image can be shared with; -1 is no limit."""

    limit_param_default: int = 25
    """Images on one page of a list, if the client does not say."""

    api_limit_max: int = 1000
    """Images on one page of a list at most."""

    ticket_ttl_s: int = 1800
    """Seconds for which a host may fetch an image for a server that starts there."""

    upload_lease_s: float = 300.0
    """Seconds after which an upload that gave no sign of life is dead, and another one may begin."""

    keep_deleted_days: float = 30.0
    """Days for which the id of a deleted image is not used again."""
