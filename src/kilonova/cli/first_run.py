"""``kilonova first-run``: a cloud, a first server in it, and the proof that it answers. What `make run` calls.

It starts ``kilonova up`` as a process of its own and then is a user like any other: everything goes through
the REST API and ssh. What is there already (image, flavors, key, the server itself) is used again, so the
second run is quick. Then it stays and shows how the server is, until Ctrl-C; with ``--once`` it removes
instead what it made, looks that nothing is left on the machine, and ends.
"""

import argparse
import asyncio
import contextlib
import fcntl
import os
import shutil
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
from rich.markup import escape

from kilonova.base.clock import Clock, SystemClock
from kilonova.cli.first_needs import ImageFile, Made
from kilonova.cli.first_server import BootFailedError, FirstServer
from kilonova.cli.guest_login import Login
from kilonova.cli.leftovers import Machine, end_processes, processes_of
from kilonova.cli.progress import Progress
from kilonova.cli.rest import Rest, RestError, credentials

_READY_S: Final = 90.0
"""A cloud that starts for the very first time has libvirt look at QEMU, which takes seconds."""


class FirstRunError(Exception):
    """It cannot go on. The message says why and what to do."""


@dataclass(frozen=True)
class Wanted:
    """What the command line asked for."""

    state: Path
    listen: str
    virt: str
    image: ImageFile
    once: bool

    @property
    def url(self) -> str:
        """Where the API will answer on this machine."""
        host, _, port = self.listen.rpartition(":")
        return f"http://{'127.0.0.1' if host in ('', '0.0.0.0') else host}:{port}"  # noqa: S104 - only compared


def add_parser(subparsers: Any) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "first-run",
        help="run a cloud, boot a first server in it and log in to it ('make run')",
        description="Start a cloud, boot a first server through its API, wait until ssh and the metadata service have "
        "answered, show what happened, and stay until Ctrl-C.",
    )
    parser.add_argument("--state", type=Path, default=Path("var"), metavar="DIR", help="state directory (default: var)")
    parser.add_argument("--listen", default="127.0.0.1:8774", metavar="ADDR:PORT", help="where the API listens")
    parser.add_argument("--virt", choices=("auto", "libvirt"), default="auto", help="as in 'kilonova up'")
    parser.add_argument(
        "--image",
        type=Path,
        default=Path("build/guest/kilonova-guest.qcow2"),
        metavar="FILE",
        help="the guest image, as 'make guest-image' builds it (default: build/guest/kilonova-guest.qcow2)",
    )
    parser.add_argument("--once", action="store_true", help="remove everything again and end")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Do it; the process's exit status."""
    if not args.image.exists():
        print(f"first-run: there is no guest image {args.image}. Run: make guest-image", file=sys.stderr)
        return 1
    wanted = Wanted(args.state.resolve(), args.listen, args.virt, ImageFile.of(args.image), args.once)
    return asyncio.run(_interruptible(wanted))


async def _interruptible(wanted: Wanted) -> int:
    """Ctrl-C and SIGTERM cancel what is under way, wherever it is; the cleaning up is part of it."""
    work = asyncio.create_task(FirstRun(wanted, SystemClock()).run())
    loop = asyncio.get_running_loop()
    for sign in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(sign, work.cancel)
    try:
        return await work
    except asyncio.CancelledError:
        return 130


class FirstRun:
    """One run, from nothing to a server that answers, and back."""

    def __init__(self, wanted: Wanted, clock: Clock, progress: Progress | None = None) -> None:
        self.wanted = wanted
        self.progress = progress or Progress(clock)
        self._clock = clock
        self._made = Made()
        self._cloud: asyncio.subprocess.Process | None = None
        self._answered = False
        self._new_state = not wanted.state.exists()
        self._before = Machine.look()
        self._processes_before = frozenset(processes_of(wanted.state))

    async def run(self) -> int:
        """The exit status: 0 if all went well, and ended as asked."""
        status = 0
        try:
            await self._until_told_to_end()
        except (FirstRunError, BootFailedError, RestError) as problem:
            self._explain(problem)
            status = 1
        except asyncio.CancelledError:
            self.progress.console.print("\nStopping ...")
            # Once the server has answered, Ctrl-C is how one ends a good run.
            status = 0 if self._answered and not self.wanted.once else 130
        finally:
            if not self.wanted.once:
                await self._stop_cloud()
        if not self.wanted.once:
            return status
        return await self._undo(status)

    async def _until_told_to_end(self) -> None:
        progress = self.progress
        with progress.step("start the cloud") as step:
            step.say(f"kilonova up on {self.wanted.listen}")
            await self._start_cloud()
            step.say(f"API at {self.wanted.url}, state in {self.wanted.state}")
        async with await self._login() as rest:
            server = self._server(rest)
            # A server of its own with --once, so that removing it takes nothing from anybody.
            await server.boot(self.wanted.image, name="first-once" if self.wanted.once else "first")
            self._answered = True
            progress.console.print()
            progress.console.print(progress.table("From nothing to a server that answers"))
            self._say_where(server)
            if not self.wanted.once:
                await self._stay(server)

    # --- The cloud -----------------------------------------------------------------------------------------

    async def _start_cloud(self) -> None:
        if owner := _owner(self.wanted.state):
            # A cloud that runs already is as good, and is not ours to stop.
            await self._until_ready(f"the cloud that runs already (process {owner})")
            return
        command = [sys.executable, "-m", "kilonova.cli.main", "up", "--state", str(self.wanted.state)]
        command += ["--listen", self.wanted.listen, "--virt", self.wanted.virt]
        self.wanted.state.mkdir(parents=True, exist_ok=True)
        # A session of its own: Ctrl-C is for this process, which then stops the cloud in order.
        with _output_of(self.wanted.state).open("wb") as output:
            self._cloud = await asyncio.create_subprocess_exec(
                *command, stdout=output, stderr=output, stdin=asyncio.subprocess.DEVNULL, start_new_session=True
            )
        await self._until_ready("the cloud")

    async def _until_ready(self, what: str) -> None:
        end = self._clock.monotonic() + _READY_S
        last = "no answer"
        async with httpx.AsyncClient(timeout=5) as http:
            while self._clock.monotonic() < end:
                if self._gone:
                    raise FirstRunError(f"the cloud ended at once. It said:\n{_tail(_output_of(self.wanted.state))}")
                with contextlib.suppress(httpx.TransportError):
                    answer = await http.get(f"{self.wanted.url}/readyz")
                    if answer.status_code == 200:
                        return
                    last = answer.text[:300]
                await self._clock.sleep(0.1)
        raise FirstRunError(
            f"{what} is not ready after {_READY_S:.0f} s: {last}. See {self.wanted.state / 'logs'}; "
            f"is something else listening on {self.wanted.listen}? Another place: make run LISTEN=127.0.0.1:18774"
        )

    async def _login(self) -> Rest:
        with self.progress.step("log in") as step:
            rest = await Rest.login(credentials(self.wanted.state / "clouds.yaml"))
            step.say(f"user {rest.user}, project {rest.project}")
            return rest

    async def _stop_cloud(self) -> None:
        if self._cloud is None or self._cloud.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._cloud.terminate()
        try:
            await asyncio.wait_for(self._cloud.wait(), 60)
        except TimeoutError:
            self.progress.console.print("The cloud does not stop; killing it. Nothing is lost: state is on disk.")
            self._cloud.kill()
            await self._cloud.wait()

    def _server(self, rest: Rest) -> FirstServer:
        return FirstServer(rest, self.progress, self._clock, Login(self.wanted.state / "first-run"), self._made)

    # --- Staying and leaving -------------------------------------------------------------------------------

    async def _stay(self, server: FirstServer) -> None:
        console = self.progress.console
        with console.status("running") as status:
            if not console.is_terminal:
                console.print("Running; stop with Ctrl-C (SIGINT) or SIGTERM.")
            while True:
                if self._gone:
                    raise FirstRunError(
                        f"the cloud ended by itself. It said:\n{_tail(_output_of(self.wanted.state))}\n"
                        "The server runs on; 'make run' takes it over again."
                    )
                status.update(f"{await server.in_one_line()}   Ctrl-C stops the cloud; the server runs on")
                await self._clock.sleep(2)

    async def _undo(self, status: int) -> int:
        """Remove what this run made, and look whether the machine is as it was; also after a failure."""
        others = 0
        try:
            if (self.wanted.state / "clouds.yaml").exists() and not self._gone:
                async with await self._login() as rest:
                    with self.progress.step("remove what was made") as step:
                        await self._server(rest).remove_made(step)
                    others = len((await rest.ask("compute", "GET", "/servers?all_tenants=1"))["servers"])
        except (RestError, BootFailedError) as problem:
            self._explain(problem)
            status = status or 1
        finally:
            await self._stop_cloud()
        with self.progress.step("look what is left") as step:
            stubborn = []
            if not others:  # else the daemons below this directory still serve somebody's guests
                stubborn = await end_processes(self.wanted.state, self._clock, keep=self._processes_before)
            left = [*Machine.look().since(self._before), *(f"process {command[:80]}" for command in stubborn)]
            if not others:
                left += [f"disk {path}" for path in sorted(self.wanted.state.glob("hosts/*/instances/*"))]
            step.say("; ".join(left) or "no bridge, tap, rule, process or disk of this run")
        say = self.progress.console.print
        if left:
            say(
                f"[red]Something was left behind[/] (above). {escape(str(self.wanted.state / 'logs'))} say who made it."
            )
            return status or 1
        if status == 0 and self._new_state:
            await asyncio.to_thread(shutil.rmtree, self.wanted.state)
            say(f"Removed {escape(str(self.wanted.state))}, which this run had made. The machine is as it was before.")
        elif status == 0:
            say(f"{escape(str(self.wanted.state))} was there before this run and stays.")
        return status

    @property
    def _gone(self) -> bool:
        """Whether the cloud that this run started has ended already."""
        return self._cloud is not None and self._cloud.returncode is not None

    # --- Words ---------------------------------------------------------------------------------------------

    def _say_where(self, server: FirstServer) -> None:
        self.progress.console.print(
            f"""
Credentials   {self.wanted.state / "clouds.yaml"} and {self.wanted.state / "openrc"}
Log in        {" ".join(server.login.command(server.address))}
Console log   openstack console log show {server.name}
The story     kilonova trace {server.request_id or "REQUEST_ID"} --state {self.wanted.state}

With the standard client:
    export OS_CLIENT_CONFIG_FILE={self.wanted.state / "clouds.yaml"} OS_CLOUD=kilonova
    openstack server list
""",
            markup=False,
            soft_wrap=True,
        )

    def _explain(self, problem: Exception) -> None:
        say = self.progress.console.print
        say(f"\n[red]It did not work:[/] {escape(str(problem))}")
        if request_id := getattr(problem, "request_id", ""):
            say(f"What that request did: kilonova trace {request_id} --state {self.wanted.state}")
        say(f"Logs: {self.wanted.state / 'logs'}. What the cloud said: {_output_of(self.wanted.state)}")


def _owner(state: Path) -> int:
    """The process that runs a cloud on this directory; 0 if none does."""
    try:
        lock = os.open(state / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return int(os.read(lock, 20) or b"1")
    finally:
        os.close(lock)
    return 0


def _output_of(state: Path) -> Path:
    return state / "up.log"


def _tail(path: Path) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-15:]) or "(nothing)"
