"""What a filter and a weigher are, and how one that knows only single hosts becomes one.

A filter answers a question for all hosts at once; a weigher gives all hosts a raw score. Both are plain
objects: their options are fields, they log nothing, and they change nothing. What is said of one host may
depend on that host's row and on the request, never on the rows of other hosts.

Besides the core there are optional roles:

- `Remembered`: says on which part of a request and on which groups of columns the answer depends, so that
  it can be kept until one of them changes, and then be mended for the hosts that changed.
- `Telling`: says in plain words what was missing when no host passed.

Plug-ins from elsewhere may be written for one host at a time, as people know them: a class with
``host_passes(host, spec)`` or ``weigh_host(host, spec)``. An adapter asks them host by host.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Final, Protocol, runtime_checkable

import numpy as np

from kilonova.model.request_spec import RequestSpec
from kilonova.scheduler.columns import Group
from kilonova.scheduler.host_view import HostView
from kilonova.scheduler.table import Column, HostTable, IntColumn, Mask

__all__ = [
    "NOT_ASKED",
    "ONCE",
    "AtLeast",
    "Column",
    "EachHostFilter",
    "EachHostWeigher",
    "Filter",
    "Group",
    "HostTable",
    "HostView",
    "IntColumn",
    "Limiting",
    "Mask",
    "PerHostFilter",
    "PerHostWeigher",
    "Remembered",
    "RequestSpec",
    "Shortfall",
    "Telling",
    "Weigher",
]


@runtime_checkable
class Filter(Protocol):
    """Decides which hosts may take a server."""

    @property
    def name(self) -> str:
        """As in ``enabled_filters`` and in explanations."""
        ...

    def mask(self, hosts: HostTable, spec: RequestSpec) -> Mask:
        """True for each row that passes. Rows without a host may have any answer."""
        ...


@runtime_checkable
class Weigher(Protocol):
    """Gives hosts a raw score; its scale, sign and multiplier are the framework's.

    A weigher may also have a `minimum` and a `maximum`, the ends of its scale (default: the smallest and
    largest score among the hosts that passed), a `multiplier` (default 1, if the options have none for it), and
    a `sign` (-1 if a larger multiplier pushes away).
    """

    @property
    def name(self) -> str:
        """As in ``weight_classes`` and in explanations."""
        ...

    @property
    def multiplier_option(self) -> str:
        """Which ``…_weight_multiplier`` of the options, or of an aggregate's metadata, scales it."""
        ...

    def weigh(self, hosts: HostTable, spec: RequestSpec) -> Column:
        """A score for each row; more is better under a positive multiplier."""
        ...


ONCE: Final = "(once)"
"""A `Remembered.key` that says: this answer is for this one request, do not keep it."""

NOT_ASKED: Final = "(not asked)"
"""A `Remembered.key` that says: the request does not touch this rule; all hosts pass, all scores are 0."""


@runtime_checkable
class Remembered(Protocol):
    """Role of a filter or weigher whose answer may be kept."""

    @property
    def reads(self) -> Group:
        """Groups of columns that the answer depends on."""
        ...

    def key(self, hosts: HostTable, spec: RequestSpec) -> Hashable:
        """Equal for requests that get equal answers from the same table; or `NOT_ASKED`, or `ONCE`.

        May look at `hosts.aggregates`, and at nothing else of the table.
        """
        ...


@runtime_checkable
class Limiting(Remembered, Protocol):
    """Role of a filter that passes hosts from a level on: ``mask`` is ``level(hosts) >= need(spec)``.

    Levels do not look at the request, so they are kept for all requests together.
    """

    def level(self, hosts: HostTable) -> Column | IntColumn:
        """What each host has."""
        ...

    def need(self, spec: RequestSpec) -> float:
        """What a host must have at least. Only asked when `key` is not `NOT_ASKED`."""
        ...


class AtLeast:
    """Base of `Limiting` filters: the mask, and the key."""

    def level(self, hosts: HostTable) -> Column | IntColumn:
        raise NotImplementedError

    def need(self, spec: RequestSpec) -> float:
        raise NotImplementedError

    def key(self, hosts: HostTable, spec: RequestSpec) -> Hashable:
        return self.need(spec)

    def mask(self, hosts: HostTable, spec: RequestSpec) -> Mask:
        if self.key(hosts, spec) is NOT_ASKED:
            return hosts.everywhere(True)
        mask: Mask = self.level(hosts) >= self.need(spec)
        return mask


@dataclass(frozen=True)
class Shortfall:
    """What was missing, for the sentence "No host {lacks}; {nearest}." Never a host's name."""

    lacks: str
    """Such as ``has 16 free vCPUs``."""
    nearest: str = ""
    """Such as ``the largest free is 12, on 3 hosts``: the smallest change that would have fitted."""


@runtime_checkable
class Telling(Protocol):
    """Role of a filter that can say what was missing."""

    def missing(self, hosts: HostTable, spec: RequestSpec, among: Mask) -> Shortfall:
        """Why none of the hosts in `among` passed. There is at least one."""
        ...


# ---- one host at a time --------------------------------------------------------------------------------------


@runtime_checkable
class PerHostFilter(Protocol):
    """A filter as people write them: asked for each host by itself."""

    def host_passes(self, host: HostView, spec: RequestSpec) -> bool: ...


@runtime_checkable
class PerHostWeigher(Protocol):
    """A weigher as people write them: asked for each host by itself."""

    def weigh_host(self, host: HostView, spec: RequestSpec) -> float: ...


@dataclass(frozen=True)
class EachHostFilter:
    """Asks a `PerHostFilter` for every host. It may look at anything, so its answers are not kept."""

    inner: PerHostFilter

    @property
    def name(self) -> str:
        return str(getattr(self.inner, "name", type(self.inner).__name__))

    def mask(self, hosts: HostTable, spec: RequestSpec) -> Mask:
        answers = hosts.everywhere(False)
        for row in np.flatnonzero(hosts.alive):
            answers[row] = bool(self.inner.host_passes(HostView(hosts, int(row)), spec))
        return answers


@dataclass(frozen=True)
class EachHostWeigher:
    """Asks a `PerHostWeigher` for every host. Its multiplier is its own ``weight_multiplier``, or 1."""

    inner: PerHostWeigher
    multiplier_option: str = ""

    @property
    def name(self) -> str:
        return str(getattr(self.inner, "name", type(self.inner).__name__))

    @property
    def multiplier(self) -> float:
        own: Any = getattr(self.inner, "weight_multiplier", 1.0)
        return float(own() if callable(own) else own)

    def weigh(self, hosts: HostTable, spec: RequestSpec) -> Column:
        scores = np.zeros(hosts.size)
        for row in np.flatnonzero(hosts.alive):
            score = float(self.inner.weigh_host(HostView(hosts, int(row)), spec))
            if not np.isfinite(score):
                hosts.complain(f"{self.name} gave a host the score {score}; it counts as 0")
                score = 0.0
            scores[row] = score
        return scores
