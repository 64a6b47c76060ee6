"""One process of the claim race: ``python claimer.py URL FIRST COUNT HOST_ID``; prints how many claims it won."""

import asyncio
import sys

from kilonova.model.errors import ClaimLost, Unavailable
from kilonova.store.engine import Store
from kilonova.store.queries import allocations


async def main(url: str, first: int, count: int, host_id: int) -> int:
    """Claim for `count` servers, as many at a time as the store takes."""
    store = Store.open(url)

    async def claim(number: int) -> bool:
        server_id = f"00000000-0000-4000-8000-{number:012d}"
        for _ in range(50):
            try:
                await store.run(
                    allocations.claim_first,
                    server_id=server_id,
                    candidates=[(host_id, "h1")],
                    amounts={"VCPU": 1, "MEMORY_MB": 64},
                )
            except ClaimLost:
                return False
            except Unavailable:  # the server is crowded: that is no answer
                await asyncio.sleep(0.05)
            else:
                return True
        raise TimeoutError

    won = await asyncio.gather(*(claim(number) for number in range(first, first + count)))
    await store.close()
    return sum(won)


if __name__ == "__main__":
    print(asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))))
