"""The bell: one ring for many, and topics of single hosts."""

import asyncio

from kilonova.launch.bell import RpcBell
from kilonova.model.errors import Unavailable


async def test_a_ring_for_a_host_reaches_that_host_and_a_deaf_one_harms_nobody() -> None:
    heard: list[str] = []

    async def wake() -> None:
        heard.append("conductor")

    async def refresh(host: str) -> None:
        if host == "deaf.example":
            raise Unavailable()
        heard.append(host)

    bell = RpcBell({"conductor": wake}, of_host={"network": refresh})
    for topic in ("network.h1.example", "network.deaf.example", "conductor", "network.h2"):
        bell.ring(topic)
    await asyncio.sleep(0.01)
    assert sorted(heard) == ["conductor", "h1.example", "h2"]
