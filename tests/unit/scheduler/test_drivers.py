"""The schedulers: chosen by configuration, and what each promises."""

import asyncio
import random
from collections import Counter
from collections.abc import Collection
from typing import Any

import pytest
from scheduler_builders import a_host, a_request, aggregate_states, chi_square, host_table
from structlog.testing import capture_logs

from kilonova.base.clock import SystemClock
from kilonova.base.config import Config, ConfigError
from kilonova.launch.plugins import build_rules, load_driver
from kilonova.model.host import HostState
from kilonova.scheduler.drivers.base import SchedulerDriver, Setup
from kilonova.scheduler.drivers.chance import ChanceScheduler
from kilonova.scheduler.drivers.fake import FakeScheduler
from kilonova.scheduler.drivers.filter import CachingScheduler, FilterScheduler
from kilonova.scheduler.endpoint import SchedulerEndpoint
from kilonova.scheduler.feed import FeedPage
from kilonova.scheduler.metrics import SchedulerMetrics
from kilonova.scheduler.options import SchedulerOptions


def driver_of(name: str, *, seed: int = 1, **options: Any) -> SchedulerDriver:
    config = Config(overrides={"scheduler": {"driver": name, **options}})
    chosen = config.get(SchedulerOptions)
    return load_driver(chosen.driver, Setup(chosen, random.Random(seed), lambda: build_rules(config)))


# ---- by configuration ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "cls"),
    [
        ("filter_scheduler", FilterScheduler),
        ("caching_scheduler", CachingScheduler),
        ("chance_scheduler", ChanceScheduler),
        ("fake_scheduler", FakeScheduler),
        ("nova.scheduler.chance.ChanceScheduler", ChanceScheduler),
        ("kilonova.scheduler.drivers.fake:FakeScheduler", FakeScheduler),
        ("kilonova.scheduler.drivers.fake.FakeScheduler", FakeScheduler),
    ],
)
def test_the_scheduler_is_the_one_that_is_named(name: str, cls: type) -> None:
    assert type(driver_of(name)) is cls


def test_the_default_is_the_filter_scheduler() -> None:
    assert SchedulerOptions().driver == "filter_scheduler"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("chance_schedular", r"\[scheduler\] driver: there is no 'chance_schedular'. Did you mean 'chance_scheduler'"),
        ("zzz", r"there is no 'zzz'. There are: .*caching_scheduler"),
        ("no_such_package:Scheduler", r"'no_such_package:Scheduler' cannot be loaded"),
        ("kilonova.scheduler.drivers.fake:FakeSchedular", r"Did you mean 'FakeScheduler'"),
        ("random:Random", r"'random:Random' is no scheduler: it lacks make, select, reads_feed_each_time"),
    ],
)
def test_a_name_that_is_none_is_told_with_the_nearest(name: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        driver_of(name)


@pytest.mark.parametrize("name", ["chance_scheduler", "fake_scheduler"])
def test_schedulers_without_filters_do_not_care_what_filters_are_named(name: str) -> None:
    config = Config(overrides={"filter_scheduler": {"enabled_filters": ("NoSuchFilter",)}})
    load_driver(name, Setup(SchedulerOptions(), random.Random(1), lambda: build_rules(config)))
    with pytest.raises(ConfigError, match="NoSuchFilter"):
        load_driver("filter_scheduler", Setup(SchedulerOptions(), random.Random(1), lambda: build_rules(config)))


# ---- chance ----------------------------------------------------------------------------------------------------


def test_chance_takes_all_hosts_that_are_up_equally_often() -> None:
    table = host_table(12, is_up=[True] * 10 + [False, True], is_enabled=[True] * 11 + [False])
    driver = driver_of("chance_scheduler", seed=7)
    firsts: Counter[str] = Counter()
    for _ in range(10_000):
        [choice] = driver.select(table, a_request(), now=0.0)
        firsts[choice.candidates[0].host] += 1
    assert set(firsts) == {f"h{n}" for n in range(10)}
    assert chi_square(firsts.values()) < 27.9  # 9 degrees of freedom: once in a thousand seeds


def test_chance_names_alternates_each_once() -> None:
    table = host_table(8)
    driver = driver_of("chance_scheduler", max_candidates=3)
    places: Counter[int] = Counter()
    for _ in range(2_000):
        [choice] = driver.select(table, a_request(), now=0.0)
        assert len({candidate.host for candidate in choice.candidates}) == 3
        places.update(candidate.host_id for candidate in choice.candidates)
    assert chi_square(places.values()) < 24.4  # 7 degrees of freedom


def test_chance_asks_no_filter_but_keeps_what_was_told() -> None:
    table = host_table(4, vcpus=[0, 0, 0, 0])
    driver = driver_of("chance_scheduler")

    def hosts(**values: Any) -> set[str]:
        [choice] = driver.select(table, a_request(**values), now=0.0)
        return {candidate.host for candidate in choice.candidates}

    assert hosts(vcpus=99, availability_zone="nowhere") == {"h0", "h1", "h2", "h3"}
    assert hosts(excluded_hosts=("h0", "h3")) == {"h1", "h2"}
    assert hosts(requested_host="h2") == {"h2"}
    assert hosts(force_host="h1", excluded_hosts=("h1",)) == {"h1"}
    assert hosts(requested_host="gone") == hosts(force_host="gone") == set()


def test_chance_deducts_what_it_gives_and_says_what_it_did() -> None:
    table = host_table(2, is_up=[True, False])
    choices = driver_of("chance_scheduler").select(table, a_request("s1", "s2", vcpus=3), now=0.0)
    assert [choice.server_id for choice in choices] == ["s1", "s2"]
    assert table.free_vcpus.tolist() == [10, 16]
    assert choices[0].explanation.filters == (("", 2), ("up", 1))
    assert choices[0].explanation.chosen == ("h0",)


def test_chance_says_so_when_nobody_is_there() -> None:
    [choice] = driver_of("chance_scheduler").select(host_table(2, is_up=[False, False]), a_request(), now=0.0)
    assert choice.candidates == ()
    assert choice.explanation.missing == "No host is up, enabled, and untried."


def test_chance_repeats_itself_from_its_seed() -> None:
    def run(seed: int) -> list[str]:
        driver, table = driver_of("chance_scheduler", seed=seed), host_table(50)
        return [driver.select(table, a_request(), now=0.0)[0].candidates[0].host for _ in range(30)]

    assert run(1) == run(1) != run(2)


# ---- fake ------------------------------------------------------------------------------------------------------


def test_fake_chooses_nobody_and_takes_nothing() -> None:
    table = host_table(3)
    version = table.version
    choices = driver_of("fake_scheduler").select(table, a_request("s1", "s2", force_host="h1"), now=0.0)
    assert [choice.server_id for choice in choices] == ["s1", "s2"]
    assert all(choice.candidates == () for choice in choices)
    assert choices[0].explanation.filters == (("", 3),)
    assert choices[0].explanation.missing == "The fake scheduler chooses no host."
    assert table.version == version and not table.pending


# ---- caching ---------------------------------------------------------------------------------------------------


class Feed:
    """Hosts from memory; counts who looks."""

    def __init__(self, *states: HostState) -> None:
        self.states = list(states)
        self.aggregates: tuple[int, list[Any]] | None = None
        self.reads = 0

    async def read(self, *, since: int, aggregates_version: int, pending: Collection[str]) -> FeedPage:
        self.reads += 1
        newer = self.aggregates if self.aggregates and self.aggregates[0] != aggregates_version else None
        return FeedPage(hosts=[state for state in self.states if state.seq > since], aggregates=newer)


class HandClock(SystemClock):
    """Time that moves when told; who sleeps wakes when the time has come."""

    def __init__(self) -> None:
        self.at = 0.0
        self._sleepers: list[tuple[float, asyncio.Event]] = []

    def monotonic(self) -> float:
        return self.at

    async def sleep(self, seconds: float) -> None:
        if seconds > 0:
            woken = asyncio.Event()
            self._sleepers.append((self.at + seconds, woken))
            await woken.wait()

    async def pass_by(self, seconds: float) -> None:
        self.at += seconds
        for until, woken in self._sleepers:
            if until <= self.at:
                woken.set()
        for _ in range(10):
            await asyncio.sleep(0)


def caching(feed: Feed, clock: HandClock, driver: str = "caching_scheduler", **options: Any) -> SchedulerEndpoint:
    chosen = SchedulerOptions(driver=driver, **options)
    return SchedulerEndpoint(feed, driver_of(driver), clock, chosen, SchedulerMetrics())


async def first_host(endpoint: SchedulerEndpoint, server_id: str, **values: Any) -> str | None:
    [choice] = await endpoint.select(a_request(server_id, **values))
    return choice.candidates[0].host if choice.candidates else None


async def test_caching_reads_no_state_for_a_request_and_the_timer_does() -> None:
    feed, clock = Feed(a_host("h0", seq=1, id=1)), HandClock()
    endpoint = caching(feed, clock, refresh_interval=1.0)
    await endpoint.start()
    await clock.pass_by(0.0)
    assert feed.reads == 1
    for number in range(10):
        assert await first_host(endpoint, f"s{number}") == "h0"
    assert feed.reads == 1
    await clock.pass_by(0.9)
    assert feed.reads == 1 and endpoint.staleness_s == pytest.approx(0.9)
    await clock.pass_by(0.2)
    assert feed.reads == 2 and endpoint.staleness_s == 0.0
    await endpoint.stop()


async def test_filter_scheduler_reads_the_state_for_each_request() -> None:
    feed = Feed(a_host("h0", seq=1, id=1))
    endpoint = caching(feed, HandClock(), driver="filter_scheduler")
    for number in range(5):
        assert await first_host(endpoint, f"s{number}") == "h0"
    assert feed.reads == 5


async def test_caching_looks_once_if_it_never_looked() -> None:
    feed = Feed(a_host("h0", seq=1, id=1))
    endpoint = caching(feed, HandClock())
    assert await first_host(endpoint, "s1") == "h0"
    assert await first_host(endpoint, "s2") == "h0"
    assert feed.reads == 1


async def test_caching_sees_what_others_did_after_the_next_look_and_what_it_did_itself_at_once() -> None:
    feed, clock = Feed(a_host("h0", seq=1, id=1, vcpus=4)), HandClock()
    endpoint = caching(feed, clock)
    await endpoint.start()
    await clock.pass_by(0.0)
    feed.states.append(a_host("h1", seq=2, id=2, vcpus=64, memory_mib=1 << 20, disk_gib=9000))
    assert await first_host(endpoint, "s1", vcpus=3) == "h0", "h1 is not known yet"
    assert await first_host(endpoint, "s2", vcpus=3) is None, "its own choice is deducted at once"
    await clock.pass_by(1.1)
    assert await first_host(endpoint, "s3", vcpus=3) == "h1"
    await endpoint.stop()


async def test_caching_refreshes_when_it_is_told_to_and_for_what_if() -> None:
    feed = Feed(a_host("h0", seq=1, id=1))
    endpoint = caching(feed, HandClock())
    await first_host(endpoint, "s1")
    feed.states.append(a_host("h1", seq=2, id=2))
    await endpoint.refresh()
    assert feed.reads == 2 and set(endpoint.table.row_of) == {"h0", "h1"}
    await endpoint.what_if(a_request("x"), most=1)
    assert feed.reads == 3


# ---- what cannot be read is told -----------------------------------------------------------------------------


async def test_malformed_metadata_is_logged_once_and_refuses_nobody() -> None:
    feed = Feed(a_host("h0", seq=1, id=1), a_host("h1", seq=2, id=2))
    feed.aggregates = (1, aggregate_states({"bad": {"ram_weight_multiplier": "much"}}, [{"bad"}, {"bad"}]))
    endpoint = caching(feed, HandClock(), driver="filter_scheduler")
    with capture_logs() as logs:
        for number in range(4):
            assert await first_host(endpoint, f"s{number}")
    told = [entry for entry in logs if entry["log_level"] == "warning"]
    assert [entry["event"] for entry in told] == ["metadata cannot be used"]
    assert "aggregate 'bad': ram_weight_multiplier is 'much', which is no number" in told[0]["what"]
