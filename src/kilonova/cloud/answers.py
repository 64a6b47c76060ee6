"""Doing a thing once, however often it is asked for under one ``Idempotency-Key``.

The key is taken, and the answer kept, in the transaction that does the thing, so all are there or none, whoever is
killed when. Only a request for several things may have done some of them and have no answer yet. An answer may hold
secrets (a password, a private key), so it is encrypted under the client's own key, of which only a hash is kept.
"""

import base64
import hashlib
from collections.abc import Callable
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

import orjson
from cryptography.fernet import Fernet

from kilonova.base.clock import Clock
from kilonova.model.context import Once, RequestContext
from kilonova.model.errors import BadRequest, Conflict
from kilonova.store.engine import Store
from kilonova.store.queries import answers
from kilonova.store.transactions import Tx

P = ParamSpec("P")
T = TypeVar("T")

LONGEST_KEY: Final = 255

WAIT_S: Final = 10.0
"""How long a repeated request waits for the answer to the first."""


def once(
    ctx: RequestContext, clock: Clock, fn: Callable[Concatenate[Tx, P], T], *, gives: Callable[[T], Any] | None = None
) -> Callable[Concatenate[Tx, P], T]:
    """`fn`, done only if nothing was done yet under the request's key.

    Args:
        gives: from what `fn` returns to what the request's answer is made of; None: that itself.
    """
    record = ctx.once
    if record is None:
        return fn
    key, at = record.next(), clock.now()

    def taken(tx: Tx, /, *args: P.args, **kwargs: P.kwargs) -> T:
        answers.take(tx, key, record.fingerprint, at=at)
        result = fn(tx, *args, **kwargs)
        answer = record.render(gives(result) if gives else result) if record.render else None
        if answer is not None:
            answers.keep(tx, record.key, status=answer[0], answer=_sealed(record, answer[1]))
            record.is_kept = True
        return result

    return taken


def _sealed(record: Once, answer: Any) -> str:
    return Fernet(record.secret).encrypt(orjson.dumps(answer)).decode()


class Answers:
    """What was answered to whom, for `answers.KEPT`."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def once(self, ctx: RequestContext, what: str, given: str, body: bytes) -> Once:
        """What stands for a request in the table.

        Args:
            what: method and path.
            given: the header's value.

        Raises:
            BadRequest
        """
        if not 0 < len(given) <= LONGEST_KEY or not given.isascii() or not given.isprintable():
            raise BadRequest(f"Idempotency-Key must be 1 to {LONGEST_KEY} printable ASCII characters.")
        secret = "\n".join((ctx.project_id, ctx.user_id, what, given)).encode()
        return Once(
            key=hashlib.sha256(b"key\n" + secret).hexdigest(),
            fingerprint=hashlib.sha256(body).hexdigest(),
            secret=base64.urlsafe_b64encode(hashlib.sha256(b"answer\n" + secret).digest()),
        )

    async def find(self, once: Once, *, wait: bool = False) -> tuple[int, Any] | None:
        """Status, and headers with body, of the answer to the first such request; None: there was none.

        Args:
            wait: there was one; its answer may be on its way.

        Raises:
            Conflict: the first had another body, or its answer was lost.
        """
        until = self._clock.monotonic() + WAIT_S
        while row := await self._store.read(answers.find, once.key, at=self._clock.now()):
            if row.fingerprint != once.fingerprint:
                raise Conflict("This Idempotency-Key was used for a request with another body: take a new one.")
            if row.status is not None:
                return row.status, orjson.loads(Fernet(once.secret).decrypt(row.answer.encode()))
            if self._clock.monotonic() >= until:
                raise Conflict(
                    "The request with this Idempotency-Key was carried out, its answer was lost: list what you have."
                )
            await self._clock.sleep(0.05)
        if wait:
            raise Conflict("The request with this Idempotency-Key was carried out long ago: take a new one.")
        return None

    async def keep(self, once: Once, status: int, answer: Any) -> None:
        """The answer to the first, for those that come again, unless it was kept with what it tells of."""
        if not once.is_kept:
            await self._store.run(answers.keep, once.key, status=status, answer=_sealed(once, answer))
