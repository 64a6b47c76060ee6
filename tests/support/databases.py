"""Database servers of a test's own: PostgreSQL and MariaDB, in directories of their own, on loopback.

They run as the system's users for them, since both refuse to run as root; full durability stays on.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

import sqlalchemy as sa

from tests.support.places import open_place
from tests.support.running import free_port

START_S = 60.0


class DatabaseMissing(RuntimeError):
    """The program is not installed; the message says which package has it."""


def _program(name: str, package: str, *places: str) -> str:
    for path in (*places, shutil.which(name), f"/usr/sbin/{name}"):
        if path and Path(path).exists():
            return path
    raise DatabaseMissing(f"{name} is not here: apt-get install {package}")


class DatabaseServer(ABC):
    """One server, which can be stopped, killed and started again on the same data."""

    user: str
    """The system's user that it runs as, where the test is root."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.port = free_port()
        self.password = secrets.token_hex(8)
        self.process: subprocess.Popen[bytes] | None = None
        root.mkdir(parents=True, exist_ok=True)
        if os.geteuid() == 0:
            account = pwd.getpwnam(self.user)
            os.chown(root, account.pw_uid, account.pw_gid)

    @abstractmethod
    def _prepare(self) -> None: ...

    @abstractmethod
    def _command(self) -> list[str]: ...

    @abstractmethod
    def url(self, name: str = "kilonova") -> str:
        """Of a database on it."""

    @abstractmethod
    def socket_url(self, name: str) -> str:
        """The same by its socket, from any network namespace."""

    @abstractmethod
    def _admin_url(self) -> str: ...

    def _as_user(self, command: list[str]) -> list[str]:
        if os.geteuid() != 0:
            return command
        return ["setpriv", f"--reuid={self.user}", f"--regid={self.user}", "--init-groups", *command]

    def _run(self, command: list[str]) -> None:
        done = subprocess.run(self._as_user(command), capture_output=True, text=True, cwd=self.root, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{command[0]}: {done.stderr or done.stdout}")

    def start(self) -> None:
        """Start it; return when it answers."""
        if not (self.root / "data").exists():
            self._prepare()
        deadline = time.monotonic() + START_S
        self._spawn()
        while not self._answers():
            assert self.process is not None
            if time.monotonic() > deadline:
                raise RuntimeError(f"no start: {(self.root / 'server.out').read_text(errors='replace')[-3000:]}")
            if self.process.poll() is not None:  # what was killed may take a moment to let go of its memory and locks
                time.sleep(0.5)
                self._spawn()
            time.sleep(0.05)

    def _spawn(self) -> None:
        with (self.root / "server.out").open("ab") as output:
            self.process = subprocess.Popen(
                self._as_user(self._command()), stdout=output, stderr=output, cwd=self.root, start_new_session=True
            )

    def _answers(self) -> bool:
        engine = sa.create_engine(self._admin_url(), poolclass=sa.NullPool)
        try:
            with engine.connect() as connection:
                connection.execute(sa.text("SELECT 1"))
        except sa.exc.DBAPIError:
            return False
        return True

    def create(self, name: str) -> str:
        """A new, empty database; its URL."""
        engine = sa.create_engine(self._admin_url(), poolclass=sa.NullPool, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(sa.text(f"CREATE DATABASE {name}"))
        return self.url(name)

    @contextlib.contextmanager
    def hung(self) -> Iterator[None]:
        """All its processes stand still, as on a machine that hangs: nothing is refused, nothing is answered."""
        assert self.process is not None
        stopped = _family(self.process.pid)
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in stopped:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def pause(self, seconds: float) -> None:
        """Let it hang for a while."""
        with self.hung():
            time.sleep(seconds)

    def kill(self) -> None:
        """kill -9 of it and all its processes."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it; its data stay."""
        self._end(signal.SIGTERM)

    def _end(self, sign: int) -> None:
        if self.process is None or self.process.poll() is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, sign)  # it leads a session of its own
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def _family(pid: int) -> list[int]:
    """A process and all below it, parents first. (PostgreSQL's are each the leader of a session.)"""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(member for child in children for member in _family(int(child)))]


@contextlib.contextmanager
def running(kind: type[DatabaseServer]) -> Iterator[DatabaseServer]:
    """A server in a directory of its own, which goes with it."""
    with open_place("database") as directory:
        server = kind(directory / "server")
        try:
            server.start()
            yield server
        finally:
            server.stop()


class PostgreSQL(DatabaseServer):
    """PostgreSQL as Debian has it."""

    user = "postgres"

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
        if not versions:
            raise DatabaseMissing("PostgreSQL is not here: apt-get install postgresql")
        self._bin = versions[-1]

    def _prepare(self) -> None:
        secret = self.root / "password"
        secret.write_text(self.password)
        secret.chmod(0o644)
        self._run(
            [
                str(self._bin / "initdb"), "-D", str(self.root / "data"), "-U", "kilonova", "-A", "scram-sha-256",
                f"--pwfile={secret}", "-E", "UTF8", "--locale=C.UTF-8",
            ]
        )  # fmt: skip
        secret.unlink()

    def _command(self) -> list[str]:
        # SIGTERM would wait for clients: the smart shutdown. What ends a test is the fast one.
        settings = ("listen_addresses=127.0.0.1", f"unix_socket_directories={self.root}", "max_connections=200")
        return [
            str(self._bin / "postgres"), "-D", str(self.root / "data"), "-p", str(self.port),
            *(part for setting in settings for part in ("-c", setting)),
        ]  # fmt: skip

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(timeout=30)

    def url(self, name: str = "kilonova") -> str:
        return f"postgresql+psycopg://kilonova:{self.password}@127.0.0.1:{self.port}/{name}"

    def socket_url(self, name: str) -> str:
        return f"postgresql+psycopg://kilonova:{self.password}@/{name}?host={self.root}&port={self.port}"

    def _admin_url(self) -> str:
        return self.url("postgres")


class MariaDB(DatabaseServer):
    """MariaDB as Debian has it."""

    user = "mysql"

    def _prepare(self) -> None:
        install = _program("mariadb-install-db", "mariadb-server")
        self._run(
            [
                install, "--no-defaults", f"--datadir={self.root / 'data'}", "--auth-root-authentication-method=normal",
                "--skip-test-db",
            ]
        )  # fmt: skip
        first = self.root / "first.sql"
        first.write_text(
            f"GRANT ALL ON *.* TO kilonova@'127.0.0.1' IDENTIFIED BY '{self.password}';\n"
            f"GRANT ALL ON *.* TO kilonova@localhost IDENTIFIED BY '{self.password}';\n"
        )

    def _command(self) -> list[str]:
        first = self.root / "first.sql"
        is_first = first.exists() and not (self.root / "prepared").exists()
        (self.root / "prepared").touch()
        return [
            _program("mariadbd", "mariadb-server"), "--no-defaults", f"--datadir={self.root / 'data'}",
            f"--port={self.port}", "--bind-address=127.0.0.1", f"--socket={self.root / 'socket'}",
            f"--pid-file={self.root / 'pid'}", "--max-connections=300", "--skip-name-resolve",
            "--innodb-flush-log-at-trx-commit=1", *([f"--init-file={first}"] if is_first else []),
        ]  # fmt: skip

    def url(self, name: str = "kilonova") -> str:
        return f"mysql+pymysql://kilonova:{self.password}@127.0.0.1:{self.port}/{name}"

    def socket_url(self, name: str) -> str:
        return f"mysql+pymysql://kilonova:{self.password}@127.0.0.1/{name}?unix_socket={self.root / 'socket'}"

    def _admin_url(self) -> str:
        return self.url("mysql")
