"""``/images/{id}/file``: the bytes of an image, streamed in and out.

Reading needs a token like everything else, or a ticket: hosts fetch images for servers that start there, and have no
token. So this one route is open to the framework, and asks for one of the two itself.
"""

import re
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from kilonova.api.http.routing import Reply, Request
from kilonova.api.image.api import api
from kilonova.api.image.shared import ImageId
from kilonova.cloud.images import ByteRange
from kilonova.model.errors import BadRequest
from kilonova.model.image import TICKET_HEADER

if TYPE_CHECKING:
    from kilonova.cloud.cloud import Cloud

OCTETS = "application/octet-stream"
_TICKET = TICKET_HEADER.lower()
_SIZE = "x-openstack-image-size"
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})\Z", re.ASCII)


@api.route("PUT", "/images/{image_id}/file", status=204, accepts=(OCTETS,), max_body=None)
async def upload(cloud: "Cloud", req: Request, image_id: ImageId, stream: AsyncIterator[bytes]) -> Reply:
    """Give an image its bytes, once."""
    await cloud.images.upload(req.ctx, image_id, stream, announced=_announced(req))
    return Reply()


@api.route("GET", "/images/{image_id}/file", public=True)
async def download(cloud: "Cloud", req: Request, image_id: ImageId) -> Reply:
    """An image's bytes, or the part of them that the header ``Range`` names."""
    part = _part(req.headers.get("range"))
    ticket = req.headers.get(_TICKET)
    if ticket is not None:
        found = await cloud.images.download_by_ticket(image_id, ticket, part)
    else:
        found = await cloud.images.download(await req.authenticate(), image_id, part)
    if found is None:
        return Reply(status=204)
    headers = {"Content-Length": str(found.length), "Accept-Ranges": "bytes"}
    if part is None:
        # Of all bytes: of a part it would be wrong.
        headers["Content-MD5"] = found.image.checksum or ""
        return Reply(stream=found.stream, headers=headers, content_type=OCTETS)
    last = found.start + found.length - 1
    headers["Content-Range"] = f"bytes {found.start}-{last}/{found.image.size}"
    return Reply(stream=found.stream, headers=headers, status=206, content_type=OCTETS)


def _announced(req: Request) -> int | None:
    """How many bytes the client says it sends."""
    sizes = {text for name in ("content-length", _SIZE) if (text := req.headers.get(name)) is not None}
    for size in sizes:
        if not size.isascii() or not size.isdigit() or len(size) > 18:
            raise BadRequest(f"The size of the image, {size[:80]!r}, is not a number of bytes.")
    if len({int(size) for size in sizes}) > 1:
        raise BadRequest(f"The headers Content-Length and {_SIZE} do not say the same.")
    return int(sizes.pop()) if sizes else None


def _part(text: str | None) -> ByteRange | None:
    """What the header ``Range`` asks for. What is not one range of bytes is ignored, as HTTP has it."""
    match = _RANGE.match(text.strip()) if text else None
    if match is None:
        return None
    first, last = (int(digits) if digits else None for digits in match.groups())
    if first is None and last is None:
        return None
    if first is not None and last is not None and last < first:
        return None
    return ByteRange(first, last)
