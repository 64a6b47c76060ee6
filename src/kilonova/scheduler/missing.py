"""Why there is no host, in words for the person who asked. Names no host, but the filter that said the last no."""

from collections.abc import Callable, Iterable

import numpy as np

from kilonova.model.request_spec import RequestSpec
from kilonova.scheduler.plugin import Filter, Shortfall, Telling
from kilonova.scheduler.table import HostTable, Mask
from kilonova.scheduler.words import count

Step = tuple[str, Filter | None, Callable[[], Mask]]

_STEP_WORDS = {
    "requested_host": Shortfall("is the one that was asked for"),
    "excluded_hosts": Shortfall("is left on which this build has not failed before"),
    "room": Shortfall("has room for the flavor's CPUs, memory and disk at once"),
}


def missing_sentence(table: HostTable, spec: RequestSpec, steps: Iterable[Step]) -> str:
    """What was missing, and the smallest change that would have fitted.

    The first sentence is about the step that removed the last hosts, and about the hosts that had come so
    far. A second one follows if hosts fail only at one other step: there, less would have to change.
    """
    if not len(table):
        return "The cloud has no hosts."
    asked = [(name, each, mask_of()) for name, each, mask_of in steps]
    among = table.alive.copy()
    last = len(asked) - 1
    for position, (_, _, mask) in enumerate(asked):
        if not (among & mask).any():
            last = position
            break
        among &= mask
    name, each, _ = asked[last]
    zone = spec.availability_zone if name != "AvailabilityZoneFilter" else None
    where = f" in availability zone '{zone}'" if zone else ""
    sentence = f"No host{where} {_told(table, spec, name, each, among)} ({name})."
    near = _one_step_away(table, asked, last)
    if near is not None:
        (name, each, _), hosts = near
        fits = count(int(hosts.sum()), "host")
        sentence += f" All else fits on {fits}, but none of these {_told(table, spec, name, each, hosts)} ({name})."
    return sentence


def _told(table: HostTable, spec: RequestSpec, name: str, each: Filter | None, among: Mask) -> str:
    shortfall = _STEP_WORDS.get(name) if each is None else None
    if each is not None and isinstance(each, Telling):
        shortfall = each.missing(table, spec, among)
    if shortfall is None:
        shortfall = Shortfall(f"passes {name}")
    return f"{shortfall.lacks}; {shortfall.nearest}" if shortfall.nearest else shortfall.lacks


def _one_step_away(
    table: HostTable, asked: list[tuple[str, Filter | None, Mask]], last: int
) -> tuple[tuple[str, Filter | None, Mask], Mask] | None:
    """The step other than `last` at which most hosts fail that fail nowhere else, and these hosts.

    None if hosts fail at `last` alone: then that is the smallest change.
    """
    refused = [~mask for _, _, mask in asked]
    # What does not fit by a filter does not fit the claim either: that is one failure, not two.
    refused[-1] &= ~np.any(refused[:-1], axis=0) if len(refused) > 1 else True
    once = table.alive & (np.sum(refused, axis=0) == 1)
    if (once & refused[last]).any():
        return None
    best = max(range(len(asked)), key=lambda position: int((once & refused[position]).sum()))
    hosts = once & refused[best]
    return (asked[best], hosts) if hosts.any() else None
