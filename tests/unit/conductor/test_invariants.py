"""Each rule of the books is broken once, in books that agree otherwise, and is told."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from kilonova.conductor.invariants import always, at_rest, networks, reported
from kilonova.model.devices import Held, HeldCell, HostDevices
from kilonova.model.guest import GuestState
from kilonova.model.host import NumaCell, Pages, PciDevice
from kilonova.model.states import PowerState, TaskState, VMState
from kilonova.store.queries.invariants import Books, PlacesRow, PortRow, Reported, ServerRow

CELL = NumaCell(
    id=0, cpus=(0, 1, 2), dedicated_cpus=(4, 5, 6, 7), pinned_cpus=(4, 5), vcpus_used=1, memory_mib=4096,
    memory_used_mib=512, pages=(Pages(size_kib=2048, total=100, used=10),),
)  # fmt: skip
CARDS = tuple(PciDevice(address=address, vendor_id="10de", product_id="1db4") for address in ("a", "b"))
HOST = HostDevices(cells=(CELL, NumaCell(id=1, memory_mib=4096)), devices=CARDS, holders={"a": "s"})
HELD = Held(cells=(HeldCell(id=0, vcpus=1, memory_mib=512, pins=(4, 5), pages={"2048": 10}),), devices=("a",))

SERVER = ServerRow(
    id="s", project_id="p", vm_state=VMState.ACTIVE, task_state=None, power_state=PowerState.RUNNING, host="h",
    image_id="i", needs={"VCPU": 2}, quota={"instances": 1}, cards=1,
    size={"vcpus": 2, "memory_mib": 512, "root_gib": 0},
)  # fmt: skip
BOOKS = Books(
    servers={"s": SERVER},
    deleted=frozenset({"old"}),
    live_tasks={},
    leases={},
    subjects={},
    held={"s": {"h": {"VCPU": 2}}},
    used={("h", "VCPU"): (2, 4.0), ("h2", "VCPU"): (0, 4.0)},
    devices={"h": HOST},
    devices_held={"s": ("h", HELD)},
    places={("g", "1"): PlacesRow("h", 1, 1), ("g", "2"): PlacesRow("h2", 0, 1)},
    places_held={"s": ("g", "1")},
    quota={("p", "instances"): 1, ("p", "port"): 1, ("p", "floating_ip"): 7},
    ports=(PortRow("port", "s", "h", 1),),
    ports_of={"p": 1},
    stray_addresses=(),
    faults={},
)
GUESTS = {"h": {"s": GuestState(server_id="s", power_state=PowerState.RUNNING)}}


OF_SERVER = {"vm_state", "task_state", "power_state", "host", "needs", "cards"}


def but(books: Books = BOOKS, /, **changes: Any) -> Books:
    """The books, with the server changed by what a server has, and themselves by the rest."""
    of_server = {name: changes.pop(name) for name in OF_SERVER & changes.keys()}
    return replace(books, **{"servers": {"s": replace(SERVER, **of_server)}, **changes})


def cell(**changes: Any) -> Mapping[str, HostDevices]:
    """The host, with its first cell changed."""
    values = {name: getattr(CELL, name) for name in CELL.__struct_fields__} | changes
    return {"h": HostDevices(cells=(NumaCell(**values), *HOST.cells[1:]), devices=CARDS, holders=HOST.holders)}


GONE = {"servers": {}, "quota": {}, "ports": (), "ports_of": {}}
"""The server is deleted, and only what a case is about was forgotten."""

BARE = {"held": {}, "used": {}, "devices": {}, "devices_held": {}, "places": {}, "places_held": {}}

DELETING, BUILDING = TaskState.DELETING, VMState.BUILDING
LIVE = (("t", "server.delete"),)


def test_books_that_agree() -> None:
    assert [*always(BOOKS), *at_rest(BOOKS, GUESTS), *networks(BOOKS, {"h": ["port"]})] == []


def test_nothing_is_wrong_with_nothing() -> None:
    assert always(replace(BOOKS, **{**GONE, **BARE})) == []


@pytest.mark.parametrize(
    ("books", "told"),
    [
        # tasks
        (but(task_state=DELETING), "stuck: what is not at rest has a live task"),
        (but(vm_state=VMState.ERROR), "odd: a server in error names step, host and cause"),
        (but(vm_state=VMState.ERROR, faults={"s": "It broke."}), "odd: a server in error names step, host and cause"),
        (but(live_tasks={"s": LIVE}, subjects={"s": "t"}), "odd: what is at rest has no live task"),
        (
            but(vm_state=BUILDING, live_tasks={"s": LIVE}, subjects={"s": "t"}),
            "stuck: a server that is built has a task state",
        ),
        (
            but(task_state=DELETING, live_tasks={"s": LIVE * 2}, subjects={"s": "t"}),
            "doubled: at most one live task",
        ),
        (but(task_state=DELETING, live_tasks={"s": LIVE}), "stuck: a live task holds its subject"),
        (but(live_tasks={"old": LIVE}, subjects={"old": "t"}), "leaked: what is deleted has no live task"),
        (but(subjects={"s": "t"}), "stuck: a subject is held by a live task"),
        # amounts
        (but(held={"s": {"h": {"VCPU": 2}, "h2": {"VCPU": 0}}}), "doubled: a claim is on one host"),
        (but(host=None), "leaked: a server without a host holds nothing"),
        (but(needs={"VCPU": 3}), "lost: a server holds what it needs on its host"),
        (replace(BOOKS, **{**GONE, **BARE, "held": BOOKS.held}), "leaked: a deleted server holds nothing"),
        (but(used={("h", "VCPU"): (3, 4.0)}), "leaked: used is the sum of the claims"),
        (but(used={("h", "VCPU"): (1, 4.0)}), "doubled: used is the sum of the claims"),
        (but(used={}), "doubled: used is the sum of the claims: VCPU of h: 0, 2"),
        (but(used={("h", "VCPU"): (2, 1.0)}), "doubled: no more is claimed than there is"),
        # cells and devices: too much is given out
        (
            but(devices=cell(vcpus_used=2)),
            "leaked: what a host gave out is what claims hold: CPUs that float in cell 0",
        ),
        (but(devices=cell(memory_used_mib=513)), "leaked: what a host gave out is what claims hold: MiB of cell 0"),
        (but(devices=cell(pinned_cpus=(4, 5, 6))), "leaked: what a host gave out is what claims hold: CPU 6 of h"),
        (
            but(devices=cell(pages=(Pages(size_kib=2048, total=100, used=11),))),
            "leaked: what a host gave out is what claims hold: pages of 2048 KiB in cell 0 of h: 11, 10",
        ),
        (
            but(devices={"h": HostDevices(cells=HOST.cells, devices=CARDS, holders={"a": "s", "b": "old"})}),
            "leaked: what a host gave out is what claims hold: device b of h",
        ),
        # ... or too little, so that somebody else gets the same
        (
            but(devices=cell(vcpus_used=0)),
            "doubled: what a host gave out is what claims hold: CPUs that float in cell 0",
        ),
        (but(devices=cell(memory_used_mib=0)), "doubled: what a host gave out is what claims hold: MiB of cell 0"),
        (but(devices=cell(pinned_cpus=(4,))), "doubled: what a host gave out is what claims hold: CPU 5 of h"),
        (
            but(devices=cell(pages=(Pages(size_kib=2048, total=100),))),
            "doubled: what a host gave out is what claims hold: pages of 2048 KiB",
        ),
        (
            but(devices={"h": HostDevices(cells=HOST.cells, devices=CARDS)}),
            "doubled: what a host gave out is what claims hold: device a of h",
        ),
        (but(devices={}), "doubled: what a host gave out is what claims hold: CPU 4 of h"),
        (
            but(
                servers={"s": SERVER, "s2": replace(SERVER, id="s2")},
                devices_held={"s": ("h", HELD), "s2": ("h", Held(cells=(HeldCell(id=0, pins=(5,)),)))},
            ),
            "doubled: what a host gave out is what claims hold: CPU 5 of h: 1, 2",
        ),
        (
            but(devices={"h": HostDevices(cells=HOST.cells, devices=CARDS, holders={"a": "other"})}),
            "odd: a device is its holder's: a of h",
        ),
        (but(host="h2"), "leaked: a server holds cells and devices of its host"),
        (but(host=None), "leaked: a server holds cells and devices of its host"),
        (
            replace(BOOKS, **{**GONE, **BARE, "devices": BOOKS.devices, "devices_held": BOOKS.devices_held}),
            "leaked: a deleted server holds no cells or devices",
        ),
        # places of groups
        (but(places={("g", "1"): PlacesRow("h", 2, None)}), "leaked: places taken are the places held: 1 of group g"),
        (but(places={("g", "1"): PlacesRow("h", 0, 1)}), "doubled: places taken are the places held: 1 of group g"),
        (but(places={}), "doubled: places taken are the places held: 1 of group g: 0, 1"),
        (but(places_held={}), "leaked: places taken are the places held: 1 of group g: 1, 0"),
        (
            but(
                servers={"s": SERVER, "s2": replace(SERVER, id="s2")},
                places={("g", "1"): PlacesRow("h", 2, 1)},
                places_held={"s": ("g", "1"), "s2": ("g", "1")},
            ),
            "doubled: no more places are taken than a group allows: 1 of group g: 2 of 1",
        ),
        (but(host="h2"), "leaked: a server's place is on its host"),
        (but(host=None), "leaked: a server's place is on its host"),
        (
            replace(BOOKS, **{**GONE, **BARE, "places": BOOKS.places, "places_held": BOOKS.places_held}),
            "leaked: a deleted server holds no place",
        ),
        # quota
        (but(quota={("p", "instances"): 2, ("p", "port"): 1}), "leaked: quota in use is what there is: instances of p"),
        (but(quota={("p", "instances"): 1}), "lost: quota in use is what there is: port of p"),
        # ports
        (but(ports=(*BOOKS.ports, PortRow("x", "old", "h", 1))), "leaked: a port of a server has one"),
        (but(ports=(PortRow("port", "s", "h2", 1),)), "odd: a port is where its server is"),
        (but(ports=(PortRow("port", "s", "h", 0),)), "lost: a port has an address"),
        (but(cards=2), "lost: a server has the ports that it asked for"),
        (but(cards=0), "doubled: a server has the ports that it asked for"),
        (but(stray_addresses=("10.0.0.1",)), "leaked: an address is a port's"),
    ],
)
def test_a_rule_that_is_broken_at_any_moment_is_told(books: Books, told: str) -> None:
    found = [str(violation) for violation in always(books)]
    assert any(text.startswith(told) for text in found), found


def guest(state: PowerState, server_id: str = "s", **size: int) -> dict[str, GuestState]:
    return {server_id: GuestState(server_id=server_id, power_state=state, **size)}


RUNS, OFF = PowerState.RUNNING, PowerState.SHUTDOWN


@pytest.mark.parametrize(
    ("books", "guests", "told"),
    [
        (but(live_tasks={"s": LIVE}), GUESTS, "stuck: every task ends"),
        (but(task_state=DELETING), GUESTS, "stuck: every server comes to rest"),
        (BOOKS, {"h2": guest(RUNS)}, "leaked: a guest belongs where it is"),
        (BOOKS, {"h": {**guest(RUNS), **guest(RUNS, "old")}}, "leaked: a guest belongs where it is"),
        (BOOKS, {"h": guest(PowerState.NOSTATE)}, "leaked: no guest is left half-made"),
        (but(host=None), {}, "lost: a server that runs has a host"),
        (BOOKS, {"h": {}}, "lost: a server at rest has its guest"),
        (BOOKS, {"h": guest(OFF)}, "odd: a server is as its guest"),
        (but(power_state=OFF), GUESTS, "odd: a server is as its guest"),
        (BOOKS, {"h": guest(RUNS, memory_mib=256)}, "odd: a guest is as large as its flavor"),
        (BOOKS, {"h": guest(RUNS), "h2": guest(RUNS)}, "doubled: no guest is on two hosts"),
    ],
)
def test_a_rule_that_is_broken_at_rest_is_told(
    books: Books, guests: Mapping[str, Mapping[str, GuestState]], told: str
) -> None:
    found = [str(violation) for violation in at_rest(books, guests)]
    assert any(text.startswith(told) for text in found), found


def test_a_server_in_error_that_says_why() -> None:
    told = {"s": "step spawn on host h, attempt 1: GuestRejected: it was refused"}
    assert at_rest(but(vm_state=VMState.ERROR, faults=told), GUESTS) == []


def test_a_guest_of_the_right_size_and_one_whose_hypervisor_does_not_say() -> None:
    assert at_rest(BOOKS, {"h": guest(RUNS, vcpus=2, memory_mib=512)}) == []


@pytest.mark.parametrize(
    ("told", "is_right"),
    [
        (Reported(3, 768, 5, 2), True),
        (Reported(3, 768, 5, None), True),
        (Reported(3, 768, 5, 1), False),
        (Reported(2, 768, 5, 2), False),
        (Reported(3, 512, 5, None), False),
        (Reported(3, 768, 0, 2), False),
    ],
)
def test_what_a_host_reports(told: Reported, is_right: bool) -> None:
    there = {**guest(RUNS, vcpus=2, memory_mib=512), **guest(OFF, "old", vcpus=1, memory_mib=256, root_gib=5)}
    found = [violation.rule for violation in reported({"h": told}, {"h": there, "h2": {}})]
    assert found == ([] if is_right else ["a host reports what its guests take"])


@pytest.mark.parametrize(("carried", "harm"), [({"h": ["port", "x"]}, "leaked"), ({"h": []}, "lost")])
def test_what_a_host_carries(carried: dict[str, list[str]], harm: str) -> None:
    assert [violation.harm for violation in networks(BOOKS, carried)] == [harm]
