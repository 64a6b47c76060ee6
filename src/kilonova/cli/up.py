"""``kilonova up``: the whole cloud in this process, until Ctrl-C."""

import argparse
import asyncio
import signal
import sys
from pathlib import Path
from typing import Any


def add_parser(subparsers: Any) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "up",
        help="run a whole cloud in this process",
        description="Run every service of a cloud in this process. All state lives under one directory; clouds.yaml "
        "and openrc with a generated password are written there. Guests outlive the process: start it again "
        "and they are still there. Ctrl-C drains and stops.",
    )
    parser.add_argument("--state", type=Path, default=Path("var"), metavar="DIR", help="state directory (default: var)")
    parser.add_argument("--listen", metavar="ADDR:PORT", help="where the API listens (default: 127.0.0.1:8774)")
    parser.add_argument(
        "--virt",
        choices=("auto", "libvirt", "fake"),
        help="real guests by libvirt (needs root), or simulated ones; auto takes libvirt where it is installed",
    )
    parser.add_argument("--hosts", type=int, metavar="N", help="simulated hosts, with --virt fake (default: 1)")
    parser.add_argument(
        "--config-file",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="INI file with options (see docs/configuration.md); may be given several times",
    )
    parser.add_argument(
        "--config-dir",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="its *.conf, by name, after the files",
    )
    parser.add_argument("--debug", action="store_true", help="log more")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run until SIGINT or SIGTERM; the process's exit status."""
    import uvloop  # imported here: help should not wait for it

    from kilonova.base import log
    from kilonova.base.config import Config, ConfigError
    from kilonova.cli.unknown_options import warn_of_unknown
    from kilonova.launch.embedded import EmbeddedCloud
    from kilonova.launch.options import DeploymentOptions, UpOptions
    from kilonova.launch.state import StateDir, StateInUse

    said = {name: getattr(args, name) for name in ("listen", "virt", "hosts") if getattr(args, name) is not None}
    try:
        config = Config(args.config_file, {"up": said}, directories=args.config_dir)
        options = config.get(UpOptions)
        debug = args.debug or config.get(DeploymentOptions).debug
        log_options = config.get(log.LogOptions)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    state = StateDir(args.state.resolve())
    state.prepare(database=True)
    log.set_up(state.logs, debug=debug, options=log_options)
    warn_of_unknown(config)

    async def until_stopped() -> int:
        try:
            cloud = EmbeddedCloud(state, options, config)
        except (ConfigError, ValueError) as error:
            print(error, file=sys.stderr)
            return 2
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for sign in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(sign, stopping.set)
        try:
            await cloud.start()
        except OSError as error:
            print(
                f"Cannot listen on {options.listen}: {error.strerror}. Choose another with --listen.", file=sys.stderr
            )
            await cloud.stop()
            return 1
        except ConfigError as error:
            print(error, file=sys.stderr)
            await cloud.stop()
            return 2
        print(
            f"API at {cloud.url}; credentials in {state.root / 'clouds.yaml'} and {state.root / 'openrc'}", flush=True
        )
        print(f"driver: {cloud.virt}; logs in {state.logs}; Ctrl-C stops (guests run on)", flush=True)
        await stopping.wait()
        print("draining …", flush=True)
        await cloud.stop()
        return 0

    try:
        with state.owned():
            return uvloop.run(until_stopped())
    except StateInUse as error:
        print(error, file=sys.stderr)
        return 1
