"""What the metadata service tells a guest, whoever carries the question."""

import base64
from dataclasses import dataclass

from kilonova.cloud.parts import Parts
from kilonova.model.metadata import InstanceFacts
from kilonova.store.queries import facts
from kilonova.store.transactions import Tx


@dataclass(frozen=True)
class Told:
    """A server's facts and its user data (decoded)."""

    facts: InstanceFacts
    user_data: bytes


class Metadata:
    """Use case of guests."""

    def __init__(self, parts: Parts, secret: str) -> None:
        self._store = parts.store
        self.secret = secret
        """Shared with the agents' proxies: they sign with it for whom they ask."""

    async def of(self, server_id: str) -> Told:
        """All that a server's guest may know.

        Raises:
            NotFound
        """
        return await self._store.read(_told, server_id)


def _told(tx: Tx, server_id: str) -> Told:
    server, found = facts.of_server(tx, server_id)
    return Told(found, base64.b64decode(server.user_data) if server.user_data else b"")
