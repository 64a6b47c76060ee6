"""What must be true of a cloud: at every moment, and once it is at rest. Pure: books and guests in, violations out.

Each rule has a name, and a kind of harm: a server that is *stuck*, something *leaked* (held by nobody who
needs it), *doubled* (held twice), *lost* (needed, and not there), or a state that the table of states does not have
(*odd*).
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal, get_args

from kilonova.model.devices import Held, HostDevices
from kilonova.model.guest import GuestState
from kilonova.model.states import PowerState, VMState
from kilonova.store.queries.invariants import Books, Reported, ServerRow

Harm = Literal["stuck", "leaked", "doubled", "lost", "odd"]


@dataclass(frozen=True)
class Violation:
    """A rule that is broken, and by what."""

    harm: Harm
    rule: str
    what: str
    text: str

    def __str__(self) -> str:
        return f"{self.harm}: {self.rule}: {self.what}: {self.text}"


_SAYS_WHY: Final = re.compile(r"step \S+ on host \S+.*: .*\w")
"""What a fault's details are like."""

Violations = Iterator[Violation]

HARMS: Final[tuple[Harm, ...]] = get_args(Harm)
"""All kinds of harm."""

AT_REST: Final = {VMState.ACTIVE: PowerState.RUNNING, VMState.STOPPED: PowerState.SHUTDOWN}
"""What the hypervisor shows of servers at rest."""


def always(books: Books) -> list[Violation]:
    """What must be true after every transaction."""
    return [
        *_tasks(books), *_claims(books), *_totals(books), *_devices(books), *_places(books), *_quota(books),
        *_ports(books),
    ]  # fmt: skip


def at_rest(
    books: Books, guests: Mapping[str, Mapping[str, GuestState]], *, gone: Collection[str] = ()
) -> list[Violation]:
    """What must be true besides when nothing is asked, nothing breaks and some time has passed.

    Args:
        guests: host to what its hypervisor shows, of the hosts that can be seen.
        gone: hosts that will not come back: nothing is said of what was on them.
    """
    return [*_rest(books), *_guests(books, guests, gone), *_guests_twice(guests)]


def networks(books: Books, carried: Mapping[str, Collection[str]]) -> Violations:
    """What must be true of hosts' networks when all is at rest: each carries the ports that are bound to it.

    Args:
        carried: host to the ids of the ports that it carries, of the hosts that can be seen.
    """
    bound: dict[str, set[str]] = {}
    for port in books.ports:
        bound.setdefault(port.host, set()).add(port.id)
    for host, there in sorted(carried.items()):
        wanted = bound.get(host, set())
        for port_id in sorted({*there} - wanted):
            yield Violation("leaked", "a host carries the ports that are bound to it", port_id, f"{host} has it, too")
        for port_id in sorted(wanted - {*there}):
            yield Violation("lost", "a host carries the ports that are bound to it", port_id, f"{host} has it not")


def reported(told: Mapping[str, Reported], guests: Mapping[str, Mapping[str, GuestState]]) -> list[Violation]:
    """Where hosts report other amounts than their guests have. For hypervisors that report what guests have, no more.

    Args:
        told: host to what it said after the last change.
        guests: as in `at_rest`.
    """
    found = []
    for host, shown in sorted(guests.items()):
        if (report := told.get(host)) is None:
            continue
        sums = {name: sum(getattr(guest, name) for guest in shown.values()) for name in _SIZES}
        there = Reported(**sums, guests=None if report.guests is None else len(shown))
        if report != there:
            found.append(Violation("odd", "a host reports what its guests take", host, f"{report}, there is {there}"))
    return found


_SIZES: Final = ("vcpus", "memory_mib", "root_gib")


def agree(before: Books, guests: Mapping[str, Mapping[str, GuestState]], after: Books) -> list[Violation]:
    """Where hypervisors of a cloud at work show something else than both of two looks at its books.

    Args:
        before: read before the hypervisors were asked, and `after` after that. What changed in between, or is being
            changed, is left out.
        guests: as in `at_rest`; hosts that did not answer are not in it.
    """
    calm = {
        server.id: server
        for server in before.servers.values()
        if server.task_state is None and after.servers.get(server.id) == server
    }
    known = before.servers.keys() | after.servers.keys()
    shown = {
        host: {server_id: guest for server_id, guest in there.items() if server_id in calm or server_id not in known}
        for host, there in guests.items()
    }
    still = replace(before, servers=calm)
    return [*_guests(still, shown, ()), *_guests_twice(shown)]


def late(tasks: Iterable[tuple[str, str]]) -> list[Violation]:
    """Tasks, by subject and kind, that were due long ago and that nobody works on."""
    return [Violation("stuck", "what is due is done", subject, kind) for subject, kind in tasks]


# ---- at every moment ------------------------------------------------------------------------------------------


def _tasks(books: Books) -> Violations:
    for server in books.servers.values():
        live = books.live_tasks.get(server.id, ())
        is_moving = server.task_state is not None or server.vm_state is VMState.BUILDING
        if is_moving and not live:
            state = f"{server.vm_state}/{server.task_state or '-'}"
            yield Violation("stuck", "what is not at rest has a live task", server.id, f"{state}, and no task")
        if not is_moving and live:
            yield Violation("odd", "what is at rest has no live task", server.id, f"{server.vm_state}, {live}")
        if server.vm_state is VMState.BUILDING and server.task_state is None:
            yield Violation("stuck", "a server that is built has a task state", server.id, "building, and none")
        if server.vm_state is VMState.ERROR and not _SAYS_WHY.match(told := books.faults.get(server.id, "")):
            yield Violation("odd", "a server in error names step, host and cause", server.id, told or "no fault at all")
    for subject, live in books.live_tasks.items():
        if len(live) > 1:
            yield Violation("doubled", "at most one live task", subject, f"{live}")
        if books.subjects.get(subject) != live[0][0]:
            yield Violation("stuck", "a live task holds its subject", subject, f"{live[0]}")
        if subject in books.deleted:
            yield Violation("leaked", "what is deleted has no live task", subject, f"{live}")
    for subject, task in books.subjects.items():
        if subject not in books.live_tasks:
            yield Violation("stuck", "a subject is held by a live task", subject, task)


def _claims(books: Books) -> Violations:
    for server in books.servers.values():
        held = books.held.get(server.id, {})
        if len(held) > 1:
            yield Violation("doubled", "a claim is on one host", server.id, ", ".join(sorted(held)))
        if server.host is None and held:
            yield Violation("leaked", "a server without a host holds nothing", server.id, ", ".join(sorted(held)))
        if server.host is not None and dict(held.get(server.host, {})) != dict(server.needs):
            text = f"on {server.host}: {dict(held.get(server.host, {}))}, needed {dict(server.needs)}"
            yield Violation("lost", "a server holds what it needs on its host", server.id, text)
    for server_id, held in books.held.items():
        if server_id not in books.servers:
            yield Violation("leaked", "a deleted server holds nothing", server_id, ", ".join(sorted(held)))


def _totals(books: Books) -> Violations:
    total: Counter[tuple[str, str]] = Counter()
    for held in books.held.values():
        for host, amounts in held.items():
            for resource_class, amount in amounts.items():
                total[host, resource_class] += amount
    for host, resource_class in sorted({*books.used, *total}):
        used, most = books.used.get((host, resource_class), (0, 0.0))
        claimed = total[host, resource_class]
        what = f"{resource_class} of {host}"
        if used != claimed:
            yield Violation(
                "leaked" if used > claimed else "doubled", "used is the sum of the claims", what, f"{used}, {claimed}"
            )
        if used > most:
            yield Violation("doubled", "no more is claimed than there is", what, f"{used} of {most:g}")


Piece = tuple[str, str]
"""What of a host, and which: a device by its address, CPUs, memory or pages of a cell."""


def _devices(books: Books) -> Violations:
    """Cells and devices, piece by piece."""
    claimed: dict[str, Counter[Piece]] = {}
    holders: dict[str, dict[str, str]] = {}
    for server_id, (host, held) in books.devices_held.items():
        server = books.servers.get(server_id)
        if server is None:
            yield Violation("leaked", "a deleted server holds no cells or devices", server_id, host)
        elif server.host != host:
            text = f"on {host}, the server on {server.host or 'none'}"
            yield Violation("leaked", "a server holds cells and devices of its host", server_id, text)
        claimed.setdefault(host, Counter()).update(_pieces_held(held))
        holders.setdefault(host, {}).update(dict.fromkeys(held.devices, server_id))
    for host in sorted({*books.devices, *claimed}):
        document = books.devices.get(host, HostDevices())
        given, needed = _pieces_given(document), claimed.get(host, Counter())
        for piece in sorted(given | needed):
            if given[piece] != needed[piece]:
                harm: Harm = "leaked" if given[piece] > needed[piece] else "doubled"
                text = f"{given[piece]}, {needed[piece]}"
                what = f"{piece[0]} {piece[1]} of {host}"
                yield Violation(harm, "what a host gave out is what claims hold", what, text)
        for address, server_id in sorted(holders.get(host, {}).items()):
            if document.holders.get(address, server_id) != server_id:
                text = f"the host gave it to {document.holders[address]}, {server_id} holds it"
                yield Violation("odd", "a device is its holder's", f"{address} of {host}", text)


def _pieces_given(host: HostDevices) -> Counter[Piece]:
    pieces: Counter[Piece] = Counter({("device", address): 1 for address in host.holders})
    for cell in host.cells:
        pieces["CPUs that float in cell", f"{cell.id}"] += cell.vcpus_used
        pieces["MiB of cell", f"{cell.id}"] += cell.memory_used_mib
        pieces.update(("CPU", f"{cpu}") for cpu in cell.pinned_cpus)
        for pages in cell.pages:
            pieces[f"pages of {pages.size_kib} KiB in cell", f"{cell.id}"] += pages.used
    return pieces


def _pieces_held(held: Held) -> Counter[Piece]:
    pieces: Counter[Piece] = Counter(("device", address) for address in held.devices)
    for cell in held.cells:
        pieces["CPUs that float in cell", f"{cell.id}"] += cell.vcpus
        pieces["MiB of cell", f"{cell.id}"] += cell.memory_mib
        pieces.update(("CPU", f"{cpu}") for cpu in cell.pins)
        for size_kib, pages in cell.pages.items():
            pieces[f"pages of {size_kib} KiB in cell", f"{cell.id}"] += pages
    return pieces


def _places(books: Books) -> Violations:
    """Of server groups, on hosts."""
    claimed = Counter(books.places_held.values())
    for server_id, (group, slot) in books.places_held.items():
        server, place = books.servers.get(server_id), books.places.get((group, slot))
        if server is None:
            yield Violation("leaked", "a deleted server holds no place", server_id, f"in group {group}")
        elif place is not None and server.host != place.host:
            text = f"in group {group} on {place.host}, the server on {server.host or 'none'}"
            yield Violation("leaked", "a server's place is on its host", server_id, text)
    for group, slot in sorted({*books.places, *claimed}):
        place, needed = books.places.get((group, slot)), claimed[group, slot]
        members, most = (place.members, place.most) if place else (0, None)
        what = f"{slot} of group {group}"
        if members != needed:
            harm: Harm = "leaked" if members > needed else "doubled"
            yield Violation(harm, "places taken are the places held", what, f"{members}, {needed}")
        if most is not None and max(members, needed) > most:
            text = f"{max(members, needed)} of {most}"
            yield Violation("doubled", "no more places are taken than a group allows", what, text)


def _quota(books: Books) -> Violations:
    wanted: Counter[tuple[str, str]] = Counter()
    for server in books.servers.values():
        for resource, amount in server.quota.items():
            wanted[server.project_id, resource] += amount
    for project_id, count in books.ports_of.items():
        wanted[project_id, "port"] += count
    for owner, resource in sorted({*wanted, *(key for key in books.quota if key[1] in _COUNTED)}):
        used, needed = books.quota.get((owner, resource), 0), wanted[owner, resource]
        if used != needed:
            harm: Harm = "leaked" if used > needed else "lost"
            what = f"{resource} of {owner}"
            yield Violation(harm, "quota in use is what there is", what, f"{used}, and there are {needed}")


_COUNTED: Final = frozenset({"instances", "cores", "ram", "port"})


def _ports(books: Books) -> Violations:
    cards: Counter[str] = Counter()
    for port in books.ports:
        cards[port.server_id] += 1
        server = books.servers.get(port.server_id)
        if server is None:
            yield Violation("leaked", "a port of a server has one", port.id, f"of {port.server_id}")
        elif (server.host or "") != port.host:
            yield Violation(
                "odd", "a port is where its server is", port.id, f"on '{port.host}', not on '{server.host or ''}'"
            )
        if port.addresses == 0:
            yield Violation("lost", "a port has an address", port.id, f"of {port.server_id}")
    for server in books.servers.values():
        if server.host is not None and cards[server.id] != server.cards:
            yield Violation(
                "lost" if cards[server.id] < server.cards else "doubled",
                "a server has the ports that it asked for",
                server.id,
                f"{cards[server.id]} of {server.cards}",
            )
    for address in books.stray_addresses:
        yield Violation("leaked", "an address is a port's", address, "no such port")


# ---- at rest ---------------------------------------------------------------------------------------------------


def _rest(books: Books) -> Violations:
    for subject, live in books.live_tasks.items():
        yield Violation("stuck", "every task ends", subject, f"{live}")
    for server in books.servers.values():
        if server.task_state is not None:
            text = f"{server.vm_state}/{server.task_state}"
            yield Violation("stuck", "every server comes to rest", server.id, text)


def _guests(books: Books, guests: Mapping[str, Mapping[str, GuestState]], gone: Collection[str]) -> Violations:
    for host, shown in sorted(guests.items()):
        for server_id, guest in sorted(shown.items()):
            server = books.servers.get(server_id)
            if server is None or server.host != host:
                where = "deleted or never made" if server is None else f"on {server.host}"
                text = f"the guest is on {host}, the server is {where}"
                yield Violation("leaked", "a guest belongs where it is", server_id, text)
            elif guest.power_state is PowerState.NOSTATE and server.vm_state is not VMState.ERROR:
                yield Violation("leaked", "no guest is left half-made", server_id, f"on {host}")
    for server in books.servers.values():
        if server.host is None or server.host in gone or server.host not in guests:
            if server.host is None and server.vm_state in AT_REST:
                yield Violation("lost", "a server that runs has a host", server.id, server.vm_state)
            continue
        yield from _guest_of(server, guests[server.host].get(server.id))


def _guest_of(server: ServerRow, guest: GuestState | None) -> Violations:
    wanted = AT_REST.get(server.vm_state)
    if wanted is None:  # in error: its guest may be there or not, what it holds counts
        return
    if guest is None:
        yield Violation("lost", "a server at rest has its guest", server.id, f"{server.vm_state} on {server.host}")
    elif guest.power_state is not wanted or server.power_state is not wanted:
        text = f"{server.vm_state}, recorded {server.power_state.name}, the guest is {guest.power_state.name}"
        yield Violation("odd", "a server is as its guest", server.id, text)
    else:
        for name, size in server.size.items():
            if (has := getattr(guest, name)) not in (0, size):  # 0: its hypervisor does not say
                text = f"{name} {has} on {server.host}, {size} in its flavor"
                yield Violation("odd", "a guest is as large as its flavor", server.id, text)


def _guests_twice(guests: Mapping[str, Mapping[str, GuestState]]) -> Violations:
    where: dict[str, list[str]] = {}
    for host, shown in sorted(guests.items()):
        for server_id in shown:
            where.setdefault(server_id, []).append(host)
    for server_id, found in sorted(where.items()):
        if len(found) > 1:
            yield Violation("doubled", "no guest is on two hosts", server_id, ", ".join(found))
