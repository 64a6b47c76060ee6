"""Implementations by name: filters, weighers, schedulers; those that come along, and those from elsewhere.

A name is looked up in this order:

1. the classic class names of what comes along (``RamFilter``), also with their old module path before them;
2. entry points of installed packages (groups ``kilonova.filters``, ``kilonova.weighers``,
   ``kilonova.schedulers``);
3. a class path, ``package.module:Class`` or ``package.module.Class``.

A plug-in is a class. If it is a dataclass, it is made with its options: a field with the name of an option of
``[filter_scheduler]`` (or ``default_availability_zone``) gets that; a field whose `default_factory` is an option
class, with a `section` of its own, gets these options.
"""

import dataclasses
import difflib
import importlib
import inspect
import pkgutil
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, partial
from importlib import metadata
from typing import Any, cast

from kilonova.base.clock import Clock
from kilonova.base.config import Config, ConfigError
from kilonova.base.ids import Ids
from kilonova.model.pci import MalformedAlias
from kilonova.model.request_spec import PciRequest
from kilonova.scheduler import filters as filters_room
from kilonova.scheduler import weighers as weighers_room
from kilonova.scheduler.decide import Rules, Weighted
from kilonova.scheduler.drivers.base import SchedulerDriver, Setup
from kilonova.scheduler.drivers.chance import ChanceScheduler
from kilonova.scheduler.drivers.fake import FakeScheduler
from kilonova.scheduler.drivers.filter import CachingScheduler, FilterScheduler
from kilonova.scheduler.endpoint import SchedulerEndpoint
from kilonova.scheduler.feed import StoreFeed
from kilonova.scheduler.metrics import SchedulerMetrics
from kilonova.scheduler.options import (
    FilterSchedulerOptions,
    MetricsOptions,
    PciOptions,
    SchedulerOptions,
    ZoneOptions,
    ratios,
)
from kilonova.scheduler.plugin import EachHostFilter, EachHostWeigher, Filter, PerHostFilter, PerHostWeigher, Weigher
from kilonova.store.engine import Store

FILTERS = "kilonova.filters"
WEIGHERS = "kilonova.weighers"
SCHEDULERS = "kilonova.schedulers"

ALL_WEIGHERS = "all_weighers"

OWN_SCHEDULERS: Mapping[str, type] = {
    "filter_scheduler": FilterScheduler,
    "caching_scheduler": CachingScheduler,
    "chance_scheduler": ChanceScheduler,
    "fake_scheduler": FakeScheduler,
}

_OPTIONS = {
    FILTERS: "[filter_scheduler] enabled_filters",
    WEIGHERS: "[filter_scheduler] weight_classes",
    SCHEDULERS: "[scheduler] driver",
}
"""Where names of each group are set, for messages."""


def build_scheduler(
    config: Config, store: Store, clock: Clock, ids: Ids, metrics: SchedulerMetrics | None = None
) -> SchedulerEndpoint:
    """The scheduler that the configuration asks for. Call its `start` before it serves, `stop` after.

    Raises:
        ConfigError: names a filter, weigher or driver that is not there, and the nearest that is.
    """
    options = config.get(SchedulerOptions)
    setup = Setup(options, ids.chance, partial(build_rules, config))
    driver = load_driver(options.driver, setup)
    feed = StoreFeed(store, with_servers=_looks_at_servers(config.get(FilterSchedulerOptions)))
    return SchedulerEndpoint(feed, driver, clock, options, metrics)


def _looks_at_servers(options: FilterSchedulerOptions) -> bool:
    """Whether a rule asks what flavors and images the servers of a host have. Third-party rules may."""
    own = {*own_filters(), *own_weighers(), ALL_WEIGHERS}
    named = {name.rpartition(".")[2] for name in (*options.enabled_filters, *options.weight_classes)}
    return bool("TypeAffinityFilter" in named or options.image_props_weight_multiplier or named - own)


def load_driver(name: str, setup: Setup) -> SchedulerDriver:
    """The scheduler of this name.

    Raises:
        ConfigError: there is none, or it is no scheduler.
    """
    own = {**OWN_SCHEDULERS, **{cls.__name__: cls for cls in OWN_SCHEDULERS.values()}}
    cls = find(SCHEDULERS, name, own)
    lacking = [each for each in ("make", "select", "reads_feed_each_time") if not hasattr(cls, each)]
    if lacking:
        raise ConfigError(f"{_OPTIONS[SCHEDULERS]}: '{name}' is no scheduler: it lacks {', '.join(lacking)}.")
    driver: SchedulerDriver = cls.make(setup)
    return driver


def build_rules(config: Config) -> Rules:
    """Filters and weighers as configured.

    Raises:
        ConfigError
    """
    options = config.get(FilterSchedulerOptions)
    _check_ratios("[metrics] weight_setting", config.get(MetricsOptions).weight_setting)
    _check_ratios("[filter_scheduler] image_props_weight_setting", options.image_props_weight_setting)
    scheduler = config.get(SchedulerOptions)
    return Rules(
        filters=tuple(load_filter(name, config) for name in options.enabled_filters),
        weighers=tuple(_weighted(weigher, options) for weigher in load_weighers(options.weight_classes, config)),
        host_subset_size=options.host_subset_size,
        shuffle_best=options.shuffle_best_same_weighed_hosts,
        max_candidates=scheduler.max_candidates,
        pci_aliases=_aliases(config),
    )


def _check_ratios(option: str, setting: Sequence[str]) -> None:
    for text in setting:
        if not ratios([text]):
            raise ConfigError(f"{option}: '{text}' is not of the form name=number.")


def _aliases(config: Config) -> Mapping[str, PciRequest]:
    try:
        return config.get(PciOptions).aliases()
    except MalformedAlias as error:
        raise ConfigError(f"{error}.") from None


def load_filter(name: str, config: Config) -> Filter:
    """The filter of this name, with its options. One written for single hosts is adapted."""
    made = _make(find(FILTERS, name, own_filters()), config)
    if isinstance(made, Filter):
        return made
    if isinstance(made, PerHostFilter):
        return EachHostFilter(made)
    raise ConfigError(f"{_OPTIONS[FILTERS]}: '{name}' is no filter: it has neither mask() nor host_passes().")


def load_weighers(names: Iterable[str], config: Config) -> list[Weigher]:
    """The weighers of these names, with their options."""
    weighers: list[Weigher] = []
    for name in names:
        if _is_everything(name):
            classes: Iterable[Any] = own_weighers().values()
        else:
            classes = [find(WEIGHERS, name, {**own_weighers(), ALL_WEIGHERS: None})]
        for cls in classes:
            made = _make(cls, config)
            if isinstance(made, Weigher):
                weighers.append(made)
            elif isinstance(made, PerHostWeigher):
                weighers.append(EachHostWeigher(made))
            else:
                raise ConfigError(
                    f"{_OPTIONS[WEIGHERS]}: '{name}' is no weigher: it has neither weigh() nor weigh_host()."
                )
    return weighers


def _is_everything(name: str) -> bool:
    return name == ALL_WEIGHERS or name.endswith(f".{ALL_WEIGHERS}")


def _weighted(weigher: Weigher, options: FilterSchedulerOptions) -> Weighted:
    if isinstance(weigher, EachHostWeigher):
        configured = weigher.multiplier
    else:
        configured = float(getattr(options, weigher.multiplier_option, getattr(weigher, "multiplier", 1.0)))
    return Weighted(
        weigher,
        multiplier=float(getattr(weigher, "sign", 1.0)) * configured,
        minimum=getattr(weigher, "minimum", None),
        maximum=getattr(weigher, "maximum", None),
    )


# ---- finding ---------------------------------------------------------------------------------------------------


@cache
def own_filters() -> Mapping[str, type]:
    """The filters that come along, by class name."""
    return _classes(filters_room)


@cache
def own_weighers() -> Mapping[str, type]:
    """The weighers that come along, by class name."""
    return _classes(weighers_room)


def _classes(room: Any) -> dict[str, type]:
    found: dict[str, type] = {}
    for module_info in sorted(pkgutil.iter_modules(room.__path__), key=lambda info: info.name):
        module = importlib.import_module(f"{room.__name__}.{module_info.name}")
        for name, cls in vars(module).items():
            if inspect.isclass(cls) and cls.__module__ == module.__name__ and getattr(cls, "name", None) == name:
                found[name] = cls
    return found


def find(group: str, name: str, own: Mapping[str, Any]) -> Any:
    """The class of this name.

    Raises:
        ConfigError: there is none; the message has the nearest right name.
    """
    short = name.rpartition(".")[2]
    if name in own:
        return own[name]
    if short in own and name.startswith("nova.scheduler."):  # as old configuration files have it
        return own[short]
    entry_points = metadata.entry_points(group=group)
    if name in entry_points.names:
        [entry_point, *_] = [point for point in entry_points if point.name == name]
        try:
            return entry_point.load()
        except (ImportError, AttributeError) as error:
            raise ConfigError(
                f"{_OPTIONS[group]}: '{name}' is declared by a package as {entry_point.value}, but: {error}."
            ) from error
    if ":" in name or "." in name:
        return _by_path(name, group)
    known = sorted({*own, *entry_points.names})
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f" Did you mean '{near[0]}'?" if near else f" There are: {', '.join(known)}."
    raise ConfigError(f"{_OPTIONS[group]}: there is no '{name}'.{hint}")


def _by_path(path: str, group: str) -> Any:
    module_name, _, name = path.rpartition(":" if ":" in path else ".")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError(f"{_OPTIONS[group]}: '{path}' cannot be loaded: {error}.") from error
    if not hasattr(module, name):
        near = difflib.get_close_matches(name, dir(module), n=1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        raise ConfigError(f"{_OPTIONS[group]}: '{path}': {module_name} has no '{name}'.{hint}")
    return getattr(module, name)


def _make(cls: Any, config: Config) -> Any:
    if not inspect.isclass(cls):
        raise ConfigError(f"{cls!r} is no class.")
    if not dataclasses.is_dataclass(cls):
        return cls()
    known = {**vars(config.get(FilterSchedulerOptions)), **vars(config.get(ZoneOptions))}
    values = {}
    for field in dataclasses.fields(cls):
        if hasattr(field.default_factory, "section"):
            values[field.name] = config.get(cast(Any, field.default_factory))
        elif field.name in known:
            values[field.name] = known[field.name]
    return cls(**values)
