"""``kilonova service``: some of a cloud's services in this process, for clouds of several processes or machines."""

import argparse
import asyncio
import signal
import sys
from pathlib import Path
from typing import Any

_EPILOG = """\
examples:
  kilonova service --config-file /etc/kilonova/kilonova.conf            what [DEFAULT] roles of this machine say
  kilonova service api --config-file /etc/kilonova/kilonova.conf        the API alone
  kilonova service conductor scheduler --config-file kilonova.conf      two in one process

Before the first start: kilonova db upgrade --config-file /etc/kilonova/kilonova.conf
A whole cloud in one process, without broker and database server: kilonova up.
"""


def add_parser(subparsers: Any) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "service",
        help="run some services of a cloud, on a broker and a database",
        description="Run some of a cloud's services in this process: api, conductor, scheduler (with the database), "
        "compute, network (agents of this machine; they have none). Start as many of each as you like, on any "
        "machine, in any order. SIGTERM drains and stops; SIGHUP reads the configuration again.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "services",
        nargs="*",
        metavar="SERVICE",
        help="api, conductor, scheduler, compute, network; none: those of this machine's roles",
    )
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
    """Run until SIGINT or SIGTERM; the process's exit status: 2 for a wrong configuration, 1 if it cannot start."""
    import uvloop  # imported here: help should not wait for it

    from kilonova.base import log
    from kilonova.base.clock import SystemClock
    from kilonova.base.config import Config, ConfigError
    from kilonova.base.ids import SystemIds
    from kilonova.cli.unknown_options import warn_of_unknown
    from kilonova.launch.options import DeploymentOptions
    from kilonova.launch.services import SERVICES, ServiceProcess, services_of
    from kilonova.launch.state import StateDir, StateInUse
    from kilonova.launch.transports import make_transport

    unknown = [name for name in args.services if name not in SERVICES]
    if unknown:
        print(f"No service '{unknown[0]}'. There are: {', '.join(SERVICES)}.", file=sys.stderr)
        return 2
    try:
        config = Config(args.config_file, directories=args.config_dir)
        options = config.get(DeploymentOptions)
        services = args.services or services_of(options.roles)
        state = StateDir(Path(options.state_path).resolve())
        transport = make_transport(options.transport_url, config, SystemClock(), SystemIds())
        service = ServiceProcess(services, state, config, transport)
        log_options = config.get(log.LogOptions)
        state.prepare()
    except (ConfigError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    log_dir = Path(options.log_dir) if options.log_dir else state.logs
    log.set_up(log_dir, debug=args.debug or options.debug, options=log_options)
    warn_of_unknown(config)

    def read_again() -> None:
        """SIGHUP: take over what can be changed while the process runs."""
        told = log.get_logger("kilonova.cli.service")
        try:
            changes = config.reload()
        except ConfigError as error:
            told.error("the configuration cannot be read; all stays as it was", cause=str(error))
            return
        debug = args.debug or config.get(DeploymentOptions).debug
        log.set_debug(debug)
        for change in changes:
            event = "option changed" if change.taken_over else "option changed: it needs a restart"
            told.warning(event, option=f"[{change.section}] {change.option}", before=change.before, after=change.after)
        told.info("configuration was read again", debug=debug, changes=len(changes))

    async def until_stopped() -> None:
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for sign in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(sign, stopping.set)
        loop.add_signal_handler(signal.SIGHUP, read_again)
        starting = asyncio.create_task(service.start())
        stopped = asyncio.create_task(stopping.wait())
        await asyncio.wait((starting, stopped), return_when=asyncio.FIRST_COMPLETED)
        try:
            if starting.done():
                starting.result()
                print(f"{', '.join(service.services)}: up on {service.process.host}", flush=True)
                await stopped
            else:
                starting.cancel()
        finally:
            stopped.cancel()
            await service.stop()

    try:
        uvloop.run(until_stopped())
    except (StateInUse, OSError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0
