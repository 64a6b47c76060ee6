"""Passwords and secrets: hashed with argon2id in threads, few at a time, and guessed at seldom.

Whether somebody exists cannot be learned here: for who does not, the same work is done on the hash of nobody's
password, failures are counted alike, and the refusal is the same. Failures are counted in the database, for all
processes together (`store.queries.failed_logins`): from one address, for one user, so many in a minute. A good login
costs no write.
"""

import asyncio
import hashlib
from dataclasses import dataclass
from typing import Any, Final

import argon2

from kilonova.base.clock import Clock
from kilonova.base.log import get_logger
from kilonova.model.errors import BadRequest, TooManyRequests, Unauthorized
from kilonova.store.engine import Store
from kilonova.store.queries import failed_logins, identity

log = get_logger(__name__)

REFUSED: Final = "The request you have made requires authentication."

MAX_LENGTH: Final = 4096
"""Characters of a password or secret."""

AT_ONCE: Final = 2
"""Hashes under way in one process: each takes 19 MiB and a processor for some 20 ms."""

MAX_WAITING: Final = 128
"""Logins that wait for their turn; more are asked to come again."""


@dataclass(frozen=True)
class Proof:
    """What somebody says in order to log in."""

    who: str
    """As one calls the user in the database, the same for every way to name it. Also where there is no such user."""
    source: str
    """The address it came from."""
    secret: str

    @property
    def key(self) -> str:
        """What its failures are counted under."""
        return hashlib.sha256(f"{self.who}\0{self.source}".encode(errors="replace")).hexdigest()


class Passwords:
    """Hashes and checks them."""

    def __init__(
        self, store: Store, clock: Clock, *, failures_per_minute: int, hasher: argon2.PasswordHasher | None = None
    ) -> None:
        """
        Args:
            failures_per_minute: of one user from one address; 0 is no limit.
            hasher: how they are hashed from now on. Those hashed otherwise are hashed anew when they are next used.
        """
        self._store = store
        self._clock = clock
        self._limit = failures_per_minute
        self._hasher = hasher or argon2.PasswordHasher(time_cost=2, memory_cost=19456, parallelism=1)
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._waiting = 0
        self._nobody = self._hasher.hash("nobody")

    async def hash(self, password: str) -> str:
        """What is kept of a password.

        Raises:
            BadRequest: it is too long.
        """
        if len(password) > MAX_LENGTH:
            raise BadRequest(f"Invalid input for field/attribute password: it is longer than {MAX_LENGTH} characters.")
        async with self._turns:
            return await asyncio.to_thread(self._hasher.hash, password)

    async def check(self, proof: Proof, hashed: str | None) -> None:
        """Return if the secret is the one that was hashed. Nobody's hash is None.

        Raises:
            Unauthorized: it is not.
            TooManyRequests: too many failures lately; or too many log in at this moment.
        """
        key, limit, now = proof.key, self._limit, self._clock.now()
        if limit:
            await self._store.read(failed_logins.check, key, limit=limit, now=now)
        right = await self._matches(hashed, proof.secret)
        if limit:
            # Many may have been tried together: one that is right counts only if fewer than the limit failed before.
            if not right:
                await self._store.run(failed_logins.add, key, limit=limit, now=now)
            elif await self._store.read(failed_logins.check, key, limit=limit, now=now):
                await self._store.run(failed_logins.clear, key, limit=limit, now=now)
        if not right:
            log.warning("login failed", user=proof.who[:80], source=proof.source)
            raise Unauthorized(REFUSED)

    async def check_user(self, proof: Proof, user: dict[str, Any] | None) -> dict[str, Any]:
        """The user, if the password is right.

        Raises:
            Unauthorized, TooManyRequests
        """
        hashed = user["password_hash"] if user and user["enabled"] else None
        await self.check(proof, hashed)
        assert user is not None
        assert hashed is not None
        if self._hasher.check_needs_rehash(hashed):
            better = await self.hash(proof.secret)
            await self._store.run(identity.keep_better_hash, user["id"], hashed, better)
        return user

    async def _matches(self, hashed: str | None, secret: str) -> bool:
        if self._waiting >= MAX_WAITING:
            raise TooManyRequests(retry_after_s=2, detail="Too many log in at this moment.")
        self._waiting += 1
        try:
            async with self._turns:
                return await asyncio.to_thread(self._verify, hashed, secret[: MAX_LENGTH + 1])
        finally:
            self._waiting -= 1

    def _verify(self, hashed: str | None, secret: str) -> bool:
        try:
            return self._hasher.verify(hashed or self._nobody, secret) and bool(hashed)
        except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
            return False
