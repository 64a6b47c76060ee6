"""Brokers of a test's own: RabbitMQ on loopback, in a directory of its own, that can be killed and started again."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from tests.support.certificates import Certificates
from tests.support.running import free_port


class BrokerMissing(RuntimeError):
    """The program is not installed; the message says which package has it."""


def _need(program: str, package: str, *places: str) -> str:
    for path in (*places, shutil.which(program)):
        if path and Path(path).exists():
            return path
    raise BrokerMissing(f"{program} is not here: apt-get install {package}")


def answers(address: str, port: int) -> bool:
    """Whether somebody listens there."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((address, port)) == 0


class Nats:
    """One NATS server with JetStream."""

    def __init__(self, root: Path, *, tls: Certificates | None = None) -> None:
        self.root = root
        self.port = free_port()
        self.user = "kilonova"
        self.password = secrets.token_hex(8)
        self.process: subprocess.Popen[bytes] | None = None
        self._scheme = "tls" if tls else "nats"
        secure = f'tls {{ cert_file: "{tls.certificate}", key_file: "{tls.key}" }}\n' if tls else ""
        self._server = _need("nats-server", "nats-server", "/usr/sbin/nats-server")
        root.mkdir(parents=True, exist_ok=True)
        (root / "nats.conf").write_text(
            f'listen: "127.0.0.1:{self.port}"\nmax_payload: 12MB\nmax_pending: 128MB\n'
            f'jetstream {{ store_dir: "{root / "store"}", max_file_store: 2GB }}\n'
            f'authorization {{ user: "{self.user}", password: "{self.password}" }}\n{secure}'
        )

    @property
    def url(self) -> str:
        return f"{self._scheme}://{self.user}:{self.password}@127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, or start it again on the same data; return when it takes connections."""
        with (self.root / "server.out").open("ab") as output:
            command = [self._server, "-c", str(self.root / "nats.conf")]
            self.process = subprocess.Popen(command, stdout=output, stderr=output)
        deadline = time.monotonic() + 20
        while not answers("127.0.0.1", self.port):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"NATS did not start: {(self.root / 'server.out').read_text()[-2000:]}")
            time.sleep(0.02)

    def kill(self) -> None:
        """kill -9."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def stop(self) -> None:
        """End it; its data stay."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(timeout=20)


class RabbitMQ:
    """One RabbitMQ node, with an epmd of its own."""

    def __init__(
        self,
        root: Path,
        *,
        address: str = "127.0.0.1",
        enter: Sequence[str] = (),
        tls: Certificates | None = None,
    ) -> None:
        """
        Args:
            address: where it listens.
            enter: a command that it is run under, as ``nsenter``.
            tls: also listen with TLS, at `tls_port`.
        """
        self.tls_port = free_port()
        self.root = root
        self.address = address
        self.port = free_port()
        self.user = "kilonova"
        self.password = secrets.token_hex(8)
        self.process: subprocess.Popen[bytes] | None = None
        self._enter = tuple(enter)
        self._node = f"kt{secrets.token_hex(4)}@localhost"
        self._dist_port, self._epmd_port = free_port(), free_port()
        self._server = _need("rabbitmq-server", "rabbitmq-server", "/usr/lib/rabbitmq/bin/rabbitmq-server")
        for name in ("mnesia", "log", "home"):
            (root / name).mkdir(parents=True, exist_ok=True)
        (root / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = {address}:{self.port}\n"
            f"default_user = {self.user}\ndefault_pass = {self.password}\nloopback_users = none\n"
            "log.console = false\nlog.file = rabbit.log\nlog.file.level = warning\n"
            "vm_memory_high_watermark.absolute = 1GB\ndisk_free_limit.absolute = 50MB\n"
            "heartbeat = 30\n"
        )
        if tls is not None:
            with (root / "rabbitmq.conf").open("a") as file:
                file.write(
                    f"listeners.ssl.1 = {address}:{self.tls_port}\nssl_options.cacertfile = {tls.authority}\n"
                    f"ssl_options.certfile = {tls.certificate}\nssl_options.keyfile = {tls.key}\n"
                )
        (root / "enabled_plugins").write_text("[].\n")
        cookie = root / "home" / ".erlang.cookie"
        cookie.write_text(secrets.token_hex(16))
        cookie.chmod(0o400)

    def url(self, vhost: str = "") -> str:
        """Of a virtual host; the default one, if empty."""
        return f"amqp://{self.user}:{self.password}@{self.address}:{self.port}/{vhost}"

    @property
    def _environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "HOME": str(self.root / "home"),
            "RABBITMQ_NODENAME": self._node,
            "RABBITMQ_CONFIG_FILE": str(self.root / "rabbitmq"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.root / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(self.root / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.root / "log"),
            "RABBITMQ_PID_FILE": str(self.root / "rabbit.pid"),
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none -kernel inet_dist_use_interface {127,0,0,1}",
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(self._epmd_port),
        }

    def start(self) -> None:
        """Start it, or start it again on the same data; return when it takes connections."""
        with (self.root / "server.out").open("ab") as output:
            self.process = subprocess.Popen(
                [*self._enter, self._server],
                env=self._environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + 90
        while not self._is_up():
            if self.process.poll() is not None or time.monotonic() > deadline:
                tail = (self.root / "server.out").read_text(errors="replace")[-3000:]
                raise RuntimeError(f"RabbitMQ did not start: {tail}")
            time.sleep(0.1)

    def _is_up(self) -> bool:
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            if not self._enter:
                return answers(self.address, self.port)
            probe = f"import socket; socket.create_connection(({self.address!r}, {self.port}), 1)"
            command = [*self._enter, "python3", "-c", probe]
            return subprocess.run(command, capture_output=True, timeout=5, check=False).returncode == 0
        return False

    def control(self, *command: str) -> str:
        """What ``rabbitmqctl`` answers."""
        program = _need("rabbitmqctl", "rabbitmq-server", "/usr/lib/rabbitmq/bin/rabbitmqctl")
        done = subprocess.run(
            [*self._enter, program, "--quiet", "-n", self._node, *command],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"rabbitmqctl {' '.join(command)}: {done.stdout}{done.stderr}")
        return done.stdout

    def kill(self) -> None:
        """kill -9 of it and all that it started."""
        self._signal(signal.SIGKILL)

    def stop(self) -> None:
        """End it and its epmd; its data stay."""
        if self.process is not None and self.process.poll() is None:
            self._signal(signal.SIGTERM)
        epmd = shutil.which("epmd")
        if epmd is not None:
            command = [*self._enter, epmd, "-port", str(self._epmd_port), "-kill"]
            subprocess.run(command, capture_output=True, timeout=10, check=False)

    def _signal(self, sign: int) -> None:
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, sign)  # it leads a session of its own
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        deadline = time.monotonic() + 20
        while self._is_up() and time.monotonic() < deadline:  # the shell goes before what it started
            time.sleep(0.02)
