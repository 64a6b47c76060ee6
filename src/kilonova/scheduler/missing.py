"""Why there is no host, in words for the person who asked. Names no host, but the filter that said the last no."""

from collections.abc import Sequence

import numpy as np

from kilonova.model.request_spec import RequestSpec
from kilonova.scheduler.plugin import Filter, Shortfall, Telling
from kilonova.scheduler.steps import ROOM
from kilonova.scheduler.table import HostTable, Mask
from kilonova.scheduler.words import count

_OF_ZONE = "AvailabilityZoneFilter"


def missing_sentence(table: HostTable, spec: RequestSpec, asked: Sequence[tuple[Filter, Mask]]) -> str:
    """What was missing, and the smallest change that would have fitted.

    The first sentence is about the step that removed the last hosts, and about the hosts that had come so
    far. A second one follows if hosts fail only at one other step: there, less would have to change.

    Args:
        asked: the steps that the request touches, in order, with their masks.
    """
    if not len(table):
        return "The cloud has no hosts."
    steps, masks = [step for step, _ in asked], [mask for _, mask in asked]
    among = table.alive.copy()
    last = len(steps) - 1
    for position, mask in enumerate(masks):
        if not (among & mask).any():
            last = position
            break
        among &= mask
    name = steps[last].name
    zone = spec.availability_zone if name != _OF_ZONE else None
    where = f" in availability zone '{zone}'" if zone else ""
    sentence = f"No host{where} {_told(table, spec, steps[last], among)} ({name})."
    near = _one_step_away(table, steps, masks, last)
    if near is not None:
        step, hosts = steps[near[0]], near[1]
        fits = count(int(hosts.sum()), "host")
        sentence += f" All else fits on {fits}, but none of these {_told(table, spec, step, hosts)} ({step.name})."
    return sentence


def _told(table: HostTable, spec: RequestSpec, step: Filter, among: Mask) -> str:
    shortfall = Shortfall(f"passes {step.name}")
    if isinstance(step, Telling):
        shortfall = step.missing(table, spec, among)
    return f"{shortfall.lacks}; {shortfall.nearest}" if shortfall.nearest else shortfall.lacks


def _one_step_away(
    table: HostTable, steps: Sequence[Filter], masks: Sequence[Mask], last: int
) -> tuple[int, Mask] | None:
    """The step other than `last` at which most hosts fail that fail nowhere else, and these hosts.

    None if hosts fail at `last` alone: then that is the smallest change.
    """
    refused = [~mask for mask in masks]
    of_room = [number for number, step in enumerate(steps) if step in ROOM]
    if of_room:
        # What does not fit by a filter does not fit the claim either: that is one failure, not two.
        others = [mask for number, mask in enumerate(refused) if number not in of_room]
        fits_others = ~np.any(others, axis=0) if others else table.everywhere(True)
        for number in of_room:
            refused[number] &= fits_others
            fits_others = fits_others & ~refused[number]
    once = table.alive & (np.sum(refused, axis=0, dtype=np.uint8) == 1)
    if (once & refused[last]).any():
        return None
    best = max(range(len(refused)), key=lambda number: int((once & refused[number]).sum()))
    hosts = once & refused[best]
    return (best, hosts) if hosts.any() else None
