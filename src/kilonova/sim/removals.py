"""Whether a guest is where its server is, at every moment: what leaves a host leaves no guest there.

A host that is down is passed over, and an undo that fails again and again is left to it: there a guest may stay, or
come to be by an order that was still on its way, until the host's agent compares. Nowhere else.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from kilonova.conductor.invariants import Violation
from kilonova.model.states import PowerState
from kilonova.sim.database import HELD_S, Note
from kilonova.sim.hypervisor import SimulatedHypervisor
from kilonova.sim.loop import SimulatedLoop
from kilonova.store.queries.invariants import Books

NOTICED_S: Final = 90.0 + HELD_S + 10.0
"""The longest from the look at whether a host is down to the commit that passes it over: a pause, and a slow way."""

COMPARISONS: Final = 5
"""That an agent may need, where nothing keeps its hypervisor from it, until a guest that does not belong there is gone:
some calls are refused all the same."""


class Removals:
    """Looks at what tasks removed, and at what is on hosts."""

    def __init__(self, loop: SimulatedLoop, hypervisors: Mapping[str, SimulatedHypervisor]) -> None:
        self._loop = loop
        self._hypervisors = hypervisors
        self._down: set[str] = set()
        self._came_up: dict[str, float] = {}
        self._passed_over: set[tuple[str, str]] = set()
        self._strays: dict[tuple[str, str], int] = {}
        """Server and host of guests that are not where their server is: comparisons that should have removed them."""

    def see(self, notes: Sequence[Note]) -> list[Violation]:
        """What was passed over in one transaction, and what was not removed and yet called so."""
        found: list[Violation] = []
        for name, *told in notes:
            if name == "host":
                self._host(*told)
            elif name == "removed":
                found += self._removed(*told)
        return found

    def _host(self, host: str, is_up: int) -> None:
        if is_up:
            self._down.discard(host)
            self._came_up[host] = self._loop.time()
        else:
            self._down.add(host)

    def _removed(self, server_id: str, host: str | None, result: str) -> Iterator[Violation]:
        if host is None or host not in self._hypervisors:
            return
        was_down = host in self._down or self._loop.time() - self._came_up.get(host, -NOTICED_S) < NOTICED_S
        if was_down or result == "failed":
            self._passed_over.add((server_id, host))
        elif server_id in self._hypervisors[host].shown():
            text = f"its removal from {host} is written down, the guest is there"
            yield Violation("leaked", "what was removed is gone", server_id, text)

    def note_comparison(self, host: str) -> None:
        """The agent of this host has compared guests with records, to the end; it counts for those it could remove."""
        hypervisor = self._hypervisors[host]
        for one in self._strays:
            if one[1] == host and hypervisor.can_destroy(one[0]):
                self._strays[one] += 1

    def look(self, books: Books) -> Iterator[Violation]:
        """Guests that are not where their server is."""
        strays: dict[tuple[str, str], int] = {}
        for host, hypervisor in self._hypervisors.items():
            for server_id in hypervisor.there():
                server = books.servers.get(server_id)
                if server is not None and server.host == host:
                    continue
                one = (server_id, host)
                strays[one] = compared = self._strays.get(one, 0)
                if one not in self._passed_over or compared > COMPARISONS:
                    yield self._told(one, server.host if server else None, compared)
        self._strays = strays

    def _told(self, one: tuple[str, str], home: str | None, compared: int) -> Violation:
        server_id, host = one
        text = f"the guest is on {host}, the server on {home or 'none'}"
        text += f", {compared} comparisons later" if one in self._passed_over else ", and nobody passed that host over"
        if self._runs(server_id, host) and self._runs(server_id, home or ""):
            return Violation("doubled", "no guest runs on two hosts", server_id, text)
        return Violation("leaked", "what leaves a host leaves no guest there", server_id, text)

    def _runs(self, server_id: str, host: str) -> bool:
        guest = self._hypervisors[host].shown().get(server_id) if host in self._hypervisors else None
        return guest is not None and guest.power_state is PowerState.RUNNING
