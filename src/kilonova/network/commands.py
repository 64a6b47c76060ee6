"""Running the system's own tools: ``ip``, ``nft``, ``dnsmasq``.

Tools and not libraries: each call takes 3 to 10 ms, several changes go into one call, nft's are one transaction, and
nothing is imported for it (a netlink library costs 0.1 s and 13 MB at start).
"""

import asyncio

from kilonova.model.errors import NetworkFailed

LIMIT_S = 20.0
"""Seconds after which a tool is given up."""


async def run(*command: str, stdin: str | None = None) -> str:
    """What a tool prints.

    Raises:
        NetworkFailed: it is not there, says no, or does not end.
    """
    status, out, errors = await attempt(*command, stdin=stdin)
    if status != 0:
        said = errors.strip() or out.strip()
        raise NetworkFailed(f"{' '.join(command[:6])} failed with status {status}: {said[:500]}")
    return out


async def attempt(*command: str, stdin: str | None = None) -> tuple[int, str, str]:
    """Exit status, output and errors of a tool, whatever it says.

    Raises:
        NetworkFailed: it is not there, or does not end.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE if stdin is not None else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        raise NetworkFailed(f"{command[0]} cannot be run on this host: {error.strerror}.") from None
    try:
        async with asyncio.timeout(LIMIT_S):
            out, errors = await process.communicate(stdin.encode() if stdin is not None else None)
    except TimeoutError:
        raise NetworkFailed(f"{' '.join(command[:4])} did not end within {LIMIT_S:g} s.") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode or 0, out.decode(errors="replace"), errors.decode(errors="replace")
