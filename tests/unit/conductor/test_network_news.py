"""Hosts are told when ports on their networks come or go: once for many, and one that cannot be told is passed over."""

from typing import Any

from kilonova.conductor.network_news import TOLD_AT_ONCE, NetworkNews
from kilonova.model.errors import Unavailable


class Hosts:
    """A store that knows which hosts have ports, and the hosts' agents."""

    def __init__(self) -> None:
        self.asked: list[set[str]] = []
        self.told: list[str] = []
        self.there = ["deaf", "h1", "h2"]

    async def read(self, _: Any, networks: set[str]) -> list[str]:
        self.asked.append(set(networks))
        return self.there

    def network(self, host: str) -> Any:
        class Agent:
            async def refresh(_) -> None:
                if host == "deaf":
                    raise Unavailable()
                self.told.append(host)

        return Agent()


async def test_many_changes_are_one_message_a_host() -> None:
    hosts = Hosts()
    news = NetworkNews(hosts, hosts.network)  # type: ignore[arg-type]
    await news.tell()
    assert hosts.asked == []
    for network in ("a", "b", "a"):
        news.changed([network])
    await news.tell()
    assert hosts.asked == [{"a", "b"}]
    assert hosts.told == ["h1", "h2"]
    await news.tell()
    assert len(hosts.asked) == 1


async def test_of_many_hosts_some_are_told_in_each_round_and_all_in_the_end() -> None:
    hosts = Hosts()
    hosts.there = [f"h{n:03d}" for n in range(2 * TOLD_AT_ONCE + 3)]
    news = NetworkNews(hosts, hosts.network)  # type: ignore[arg-type]
    news.changed(["a"])
    await news.tell()
    assert hosts.told == hosts.there[:TOLD_AT_ONCE]
    news.changed(["a"])  # those that were told hear of it again, those that wait hear of both at once
    for _ in range(4):
        await news.tell()
    assert hosts.told == [*hosts.there, *hosts.there[:TOLD_AT_ONCE]]
    await news.tell()
    assert len(hosts.asked) == 2
