"""The state directory: where one cloud keeps everything, and the secrets in it."""

import fcntl
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


class StateInUse(Exception):
    """Another process runs a cloud on this directory."""


@dataclass(frozen=True)
class StateDir:
    """Paths of one cloud. All of its state is below `root`, and nothing of it elsewhere."""

    root: Path

    @property
    def database_url(self) -> str:
        return f"sqlite:///{self.root / 'kilonova.sqlite'}"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def images(self) -> Path:
        return self.root / "images"

    @property
    def secrets(self) -> Path:
        return self.root / "secrets"

    def host(self, name: str) -> Path:
        """Where the agents of host `name` keep what is theirs."""
        return self.root / "hosts" / name

    def prepare(self, *, database: bool = False) -> None:
        """Make the directories. The root is searchable, for QEMU runs as a user of its own; secrets are private.

        Args:
            database: also the file of the embedded database, so that nobody else can read it from the start.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        self.root.chmod(0o755)
        for path in (self.logs, self.images, self.secrets):
            path.mkdir(exist_ok=True)
        # Guests' user data and passwords pass through the database and may be named in logs.
        for path in (self.logs, self.images, self.secrets):
            path.chmod(0o700)
        if database:
            file = self.root / "kilonova.sqlite"
            file.touch(mode=0o600)
            file.chmod(0o600)

    @contextmanager
    def owned(self, part: str = "") -> Iterator[None]:
        """Own this directory, or `part` of it, while the process lives.

        Raises:
            StateInUse
        """
        (self.root / part).mkdir(parents=True, exist_ok=True)
        lock = os.open(self.root / part / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            raise StateInUse(
                f"Another kilonova runs on {self.root / part}. Stop it, or choose another place."
            ) from None
        try:
            os.ftruncate(lock, 0)
            os.write(lock, str(os.getpid()).encode())
            yield
        finally:
            os.close(lock)

    def secret(self, name: str, make: Callable[[], str] | None = None) -> str:
        """The secret called `name`; made of fresh chance when first asked for, mode 600."""
        return _once(self.secrets / name, make or (lambda: secrets.token_urlsafe(32)))

    def stable_id(self, name: str, make: str) -> str:
        """An id that stays the same from run to run: `make` is taken the first time."""
        return _once(self.root / name, lambda: make)


def _once(path: Path, make: Callable[[], str]) -> str:
    """What stands in `path`; if nothing does, what `make` makes. Of processes that ask together all get the same."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f"{path.name}.{os.getpid()}")
        write_private(draft, make())
        try:
            os.link(draft, path)  # unlike rename, this fails where another process was first
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return path.read_text().strip()


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    draft = path.with_name(f"{path.name}.new.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
