"""Where a server listens, as operators write it."""

from dataclasses import dataclass
from typing import Self

_EVERYWHERE = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - only compared


@dataclass(frozen=True)
class Address:
    """An address and a port to listen on."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """From ``ADDRESS:PORT``, as ``127.0.0.1:8774``, ``[::1]:8774`` or ``:8774`` (every address).

        Raises:
            ValueError: it is of another form; the message says what would do.
        """
        host, colon, port = text.rpartition(":")
        if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
            raise ValueError(f"'{text}' is no address to listen on: give ADDRESS:PORT, as in 127.0.0.1:8774.")
        return cls(host.strip("[]") or "0.0.0.0", int(port))  # noqa: S104 - the operator left the address out

    @property
    def url(self) -> str:
        """How this machine reaches it."""
        host = "127.0.0.1" if self.host in _EVERYWHERE else self.host
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"
