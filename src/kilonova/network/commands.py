"""Running the system's own tools: ``ip``, ``nft``, ``dnsmasq``."""

import asyncio

from kilonova.model.errors import NetworkFailed

LIMIT_S = 20.0
"""Seconds after which a tool is given up."""


async def run(*command: str, stdin: str | None = None, check: bool = True) -> str:
    """What a tool prints.

    Raises:
        NetworkFailed: it is not there, or says no.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE if stdin is not None else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except FileNotFoundError:
        raise NetworkFailed(f"{command[0]} is not installed on this host.") from None
    try:
        async with asyncio.timeout(LIMIT_S):
            out, errors = await process.communicate(stdin.encode() if stdin is not None else None)
    except TimeoutError:
        process.kill()
        raise NetworkFailed(f"{' '.join(command[:4])} did not end within {LIMIT_S:g} s.") from None
    if check and process.returncode != 0:
        raise NetworkFailed(f"{' '.join(command[:6])}: {errors.decode(errors='replace').strip()[:500]}")
    return out.decode(errors="replace")
