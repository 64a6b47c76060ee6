"""What every place for bytes can do: keep a stream of bytes under a key, whole or not at all, and give it back.

Bytes under a key never change. A key is never used twice, so nothing need be locked: whoever has a key reads what was
published under it, or finds nothing.
"""

from collections.abc import AsyncIterator
from typing import ClassVar, Protocol


class Draft(Protocol):
    """Bytes on their way in. Nobody else sees them before `publish`."""

    async def write(self, data: bytes) -> None:
        """Add `data` at the end.

        Raises:
            StorageFull: there is no room; nothing helps but `discard`.
            Unavailable: the place cannot be written now.
        """
        ...

    async def publish(self) -> None:
        """Make the bytes durable and visible under their key. After it the draft is closed.

        Raises:
            StorageFull, Unavailable: as in `write`; nothing is visible.
        """
        ...

    async def discard(self) -> None:
        """Forget the bytes. May be called at any time and again; after `publish` it does nothing."""
        ...


class ByteStore(Protocol):
    """One place for bytes."""

    name: ClassVar[str]

    async def create(self, key: str) -> Draft:
        """Begin to write what will be known as `key` (letters, digits, ``.`` and ``-``).

        Raises:
            StorageFull, Unavailable
        """
        ...

    async def read(self, key: str, *, start: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """The bytes from `start` on, `length` of them or all, in pieces; close the iterator to let go of them early.

        Raises:
            NotFound: there is nothing under `key`. Before the first piece.
            Unavailable: the place cannot be read now.
        """
        ...

    async def delete(self, key: str) -> None:
        """Forget what is under `key`, also if it is a draft. Nothing there is not an error.

        Readers of the moment may read on.

        Raises:
            Unavailable
        """
        ...

    def keys(self) -> AsyncIterator[list[str]]:
        """All published keys, in portions."""
        ...

    def drafts(self) -> AsyncIterator[list[str]]:
        """The keys of all drafts, dead or alive, in portions."""
        ...
