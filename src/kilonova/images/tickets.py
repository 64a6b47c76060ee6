"""Permission to read one image for a short time, for a host that has no token: a signed note.

A ticket is ``<seconds since 1970>.<signature>``. It says nothing about who may use it, so it is a secret: it travels
to the agent with the order to start a server, and to the Image API in the header `TICKET_HEADER`.
"""

import hmac
from datetime import UTC, datetime
from hashlib import sha256
from typing import Final

_PURPOSE: Final = b"kilonova image ticket 1"
_LONGEST: Final = 12  # digits: some thirty thousand years


class Tickets:
    """Signs and verifies, with a secret that all processes of the Image API and the conductors share."""

    def __init__(self, secret: str) -> None:
        if not secret:
            raise ValueError("tickets need a secret")
        self._secret = secret.encode()

    def sign(self, image_id: str, expires_at: datetime) -> str:
        """A ticket for the bytes of one image until `expires_at`."""
        expires = str(int(expires_at.timestamp()))
        return f"{expires}.{self._signature(image_id, expires)}"

    def verify(self, image_id: str, ticket: str, *, now: datetime) -> bool:
        """Whether `ticket` is good for this image now."""
        expires, _, signature = ticket.partition(".")
        if not (expires.isascii() and expires.isdigit() and len(expires) <= _LONGEST):
            return False
        expected = self._signature(image_id, expires)
        if not hmac.compare_digest(signature.encode(errors="replace"), expected.encode()):
            return False
        return now < datetime.fromtimestamp(int(expires), UTC)

    def _signature(self, image_id: str, expires: str) -> str:
        text = b"\n".join((_PURPOSE, image_id.encode(), expires.encode()))
        return hmac.new(self._secret, text, sha256).hexdigest()
