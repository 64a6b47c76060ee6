"""Identifiers and chance, handed in like time, so that a run can be repeated from its seed."""

import random
import secrets
import uuid
from typing import Protocol


class Ids(Protocol):
    """Where identifiers and random numbers come from."""

    def uuid(self) -> str:
        """A new random UUID in canonical form (lower case, with hyphens)."""
        ...

    def secret(self, n_bytes: int = 32) -> str:
        """A new URL-safe secret made of `n_bytes` random bytes."""
        ...

    @property
    def chance(self) -> random.Random:
        """Random numbers that decide nothing secret: jitter, ties, sampling."""
        ...


class SystemIds:
    """Identifiers from the operating system's entropy."""

    def __init__(self) -> None:
        self._chance = random.SystemRandom()

    def uuid(self) -> str:
        return str(uuid.uuid4())

    def secret(self, n_bytes: int = 32) -> str:
        return secrets.token_urlsafe(n_bytes)

    @property
    def chance(self) -> random.Random:
        return self._chance


class SeededIds:
    """Repeatable identifiers for tests and simulations. Never for a cloud that people use."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)  # noqa: S311 - repeatable on purpose

    def uuid(self) -> str:
        return str(uuid.UUID(int=self._chance.getrandbits(128), version=4))

    def secret(self, n_bytes: int = 32) -> str:
        return self._chance.randbytes(n_bytes).hex()

    @property
    def chance(self) -> random.Random:
        return self._chance


def request_id(ids: Ids) -> str:
    """A new id for one request, in OpenStack's form ``req-<uuid>``."""
    return f"req-{ids.uuid()}"
