"""A ticket: short-lived, signed permission to read one image's bytes; agents have one instead of a token."""

import hashlib
import hmac
from datetime import datetime

from kilonova.model.errors import Unauthorized


def sign(secret: str, image_id: str, expires_at: datetime) -> str:
    """A ticket for `image_id`, good until `expires_at`."""
    moment = int(expires_at.timestamp())
    return f"{moment}.{_mac(secret, image_id, moment)}"


def check(secret: str, image_id: str, ticket: str, now: datetime) -> None:
    """
    Raises:
        Unauthorized: forged, of another image, or too late.
    """
    moment, _, mac = ticket.partition(".")
    if not moment.isascii() or not moment.isdigit() or len(moment) > 12:
        raise Unauthorized
    if not hmac.compare_digest(mac.encode(), _mac(secret, image_id, int(moment)).encode()):
        raise Unauthorized
    if now.timestamp() > int(moment):
        raise Unauthorized


def _mac(secret: str, image_id: str, moment: int) -> str:
    return hmac.new(secret.encode(), f"{image_id}.{moment}".encode(), hashlib.sha256).hexdigest()
