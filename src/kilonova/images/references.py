"""From an image's record to what a host needs in order to fetch it and to know that it got the right bytes."""

from collections.abc import Callable
from datetime import timedelta
from typing import Final

from kilonova.base.clock import Clock
from kilonova.images.options import ImageOptions
from kilonova.images.tickets import Tickets
from kilonova.model.errors import ImageUnusable
from kilonova.model.guest import ImageRef
from kilonova.model.image import BARE, Image, ImageStatus
from kilonova.store.engine import Store
from kilonova.store.queries import images

BOOTABLE: Final = frozenset({"qcow2", "raw"})
"""Disk formats that hosts take."""


def image_ref(image: Image, base_url: str, ticket: str) -> ImageRef:
    """The reference of one image.

    Args:
        base_url: where hosts reach the APIs, as ``http://10.0.0.1:8774``.
        ticket: of `Tickets.sign`.

    Raises:
        ImageUnusable: servers cannot start from it; the message says why.
    """
    if image.status is not ImageStatus.ACTIVE:
        raise ImageUnusable(f"Image {image.id} is {image.status}, not active.")
    if image.container_format != BARE or image.disk_format not in BOOTABLE:
        raise ImageUnusable(
            f"Image {image.id} is {image.disk_format} in {image.container_format}; servers start from "
            f"{' or '.join(sorted(BOOTABLE))} in {BARE}."
        )
    if not image.size or image.hash_value is None or image.hash_algo is None:
        raise ImageUnusable(f"Image {image.id} has no bytes.")
    return ImageRef(
        id=image.id,
        disk_format=image.disk_format,
        size=image.size,
        hash_algo=image.hash_algo,
        hash_value=image.hash_value,
        url=f"{base_url.rstrip('/')}/image/v2/images/{image.id}/file",
        ticket=ticket,
        min_disk_gib=image.min_disk,
        properties=image.properties,
    )


class ImageReferences:
    """Makes references from ids: what the conductor's steps call."""

    def __init__(
        self, store: Store, tickets: Tickets, clock: Clock, options: ImageOptions, *, api_url: Callable[[], str]
    ) -> None:
        """
        Args:
            api_url: where hosts reach the APIs; asked each time, because a port may be known late.
        """
        self._store = store
        self._tickets = tickets
        self._clock = clock
        self._ttl = timedelta(seconds=options.ticket_ttl_s)
        self._api_url = api_url

    async def __call__(self, image_id: str) -> ImageRef:
        """The reference of an image, with a fresh ticket.

        Raises:
            NotFound: the image is gone.
            ImageUnusable
        """
        image = await self._store.read(images.get, image_id)
        ticket = self._tickets.sign(image_id, self._clock.now() + self._ttl)
        return image_ref(image, self._api_url(), ticket)
