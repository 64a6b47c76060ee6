"""Plug-ins from an installed package: built, installed and loaded by name, as an operator would do it."""

import importlib
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from kilonova.base.clock import SystemClock
from kilonova.base.config import Config, ConfigError
from kilonova.base.ids import SeededIds
from kilonova.launch.plugins import build_rules, build_scheduler
from kilonova.model.host import HostReport
from kilonova.model.request_spec import Choice, RequestSpec
from kilonova.store.engine import Store
from kilonova.store.queries import hosts, services

PACKAGE = Path(__file__).parents[2] / "plugins" / "night_shift"
NOW = SystemClock().now()


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the package was installed into. Its sources are copied: building leaves traces."""
    folder = tmp_path_factory.mktemp("night_shift")
    shutil.copytree(PACKAGE, folder / "source")
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    command += [
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--target",
        str(folder / "site"),
        str(folder / "source"),
    ]
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    return folder / "site"


@pytest.fixture
def with_package(installed: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(installed))
    importlib.invalidate_caches()
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "night_shift"]:
        del sys.modules[name]


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    """A cloud of three hosts: rows a, b, b; versions 9, 8, 7."""
    opened = Store.open(f"sqlite:///{tmp_path}/plugins.sqlite")
    opened.create_all()
    for number, row in enumerate("abb"):
        name = f"h{number}"
        report = HostReport(
            host=name,
            hypervisor_hostname=name,
            hypervisor_type="fake",
            hypervisor_version=(9 - number) * 1_000_000,
            vcpus=8,
            memory_mib=16384,
            disk_gib=500,
            capabilities={"row": row},
        )
        await opened.run(services.register, service="compute", host=name, agent_id=name, uuid=f"s-{name}", at=NOW)
        await opened.run(hosts.record_report, report, uuid=f"h-{name}", at=NOW)
    yield opened
    await opened.close()


def configured(tmp_path: Path, text: str) -> Config:
    path = tmp_path / "kilonova.conf"
    path.write_text(text)
    return Config([path])


async def choose(config: Config, store: Store, *server_ids: str, **values: Any) -> list[Choice]:
    endpoint = build_scheduler(config, store, SystemClock(), SeededIds(1))
    spec = RequestSpec(server_ids=server_ids, project_id="p", vcpus=1, memory_mib=512, root_gib=1, **values)
    return await endpoint.select(spec)


async def test_filters_for_single_hosts_and_for_all_at_once(with_package: None, store: Store, tmp_path: Path) -> None:
    config = configured(
        tmp_path,
        "[filter_scheduler]\nenabled_filters = ComputeFilter,QuietHosts,SameRow\nweight_classes = RAMWeigher\n"
        "[night_shift]\nmost_servers = 1\n",
    )
    choices = await choose(config, store, "s1", "s2", "s3", scheduler_hints={"row": "b"})
    assert [[candidate.host for candidate in choice.candidates] for choice in choices] == [["h1", "h2"], ["h2"], []]
    assert choices[0].explanation.filters == (("", 3), ("ComputeFilter", 3), ("QuietHosts", 3), ("SameRow", 2))
    assert choices[1].explanation.removed == {"QuietHosts": ("h1",), "SameRow": ("h0",)}
    assert choices[2].explanation.missing.startswith("No host stands in row 'b' (SameRow).")


async def test_options_of_a_section_of_its_own_have_defaults(with_package: None, store: Store, tmp_path: Path) -> None:
    config = configured(tmp_path, "[filter_scheduler]\nenabled_filters = QuietHosts,SameRow\n")
    choices = await choose(config, store, *(f"s{n}" for n in range(6)), scheduler_hints={"row": "a"})
    assert [bool(choice.candidates) for choice in choices] == [True] * 5 + [False]
    assert choices[5].explanation.missing.startswith("No host"), "a filter that says nothing is named"


async def test_weighers_for_single_hosts_and_for_all_at_once(with_package: None, store: Store, tmp_path: Path) -> None:
    text = "[filter_scheduler]\nenabled_filters = ComputeFilter\nweight_classes = OldestFirst,RowWeigher\n"
    [choice] = await choose(configured(tmp_path, text), store, "s1")
    assert choice.explanation.scores == {
        "h2": {"OldestFirst": 2.0, "RowWeigher": 0.5},
        "h1": {"OldestFirst": 1.0, "RowWeigher": 0.5},
        "h0": {"OldestFirst": 0.0, "RowWeigher": 0.0},
    }


async def test_a_scheduler(with_package: None, store: Store, tmp_path: Path) -> None:
    choices = await choose(configured(tmp_path, "[scheduler]\ndriver = round_robin\n"), store, "s1", "s2", "s3", "s4")
    assert [choice.candidates[0].host for choice in choices] == ["h0", "h1", "h2", "h0"]


@pytest.mark.parametrize(
    ("option", "name", "told"),
    [
        ("enabled_filters", "QuietHost", "enabled_filters: there is no 'QuietHost'. Did you mean 'QuietHosts'?"),
        ("enabled_filters", "RamFiltr", "Did you mean 'RamFilter'?"),
        ("enabled_filters", "night_shift.filters:QuietHost", "Did you mean 'QuietHosts'?"),
        ("enabled_filters", "night_shift.weighers:OldestFirst", "neither mask() nor host_passes()"),
        ("enabled_filters", "night_shift.filters:NOT_ASKED", "is no class"),
        ("weight_classes", "OldestFrist", "weight_classes: there is no 'OldestFrist'. Did you mean 'OldestFirst'?"),
        ("weight_classes", "all_weigher", "Did you mean 'all_weighers'?"),
        ("weight_classes", "night_shift.filters:QuietHosts", "neither weigh() nor weigh_host()"),
        ("driver", "round_robbin", "driver: there is no 'round_robbin'. Did you mean 'round_robin'?"),
        ("driver", "night_shift.filters:SameRow", "is no scheduler"),
    ],
)
async def test_a_wrong_name_is_told_with_the_nearest_right_one(
    with_package: None, store: Store, tmp_path: Path, option: str, name: str, told: str
) -> None:
    text = f"[{'scheduler' if option == 'driver' else 'filter_scheduler'}]\n{option} = {name}\n"
    with pytest.raises(ConfigError) as error:
        build_scheduler(configured(tmp_path, text), store, SystemClock(), SeededIds(1))
    assert told in str(error.value)


def test_a_declared_class_that_is_not_there_is_told(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken-1.dist-info"
    broken.mkdir()
    (broken / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1\n")
    (broken / "entry_points.txt").write_text("[kilonova.filters]\nLost = night_shift.filters:Lost\n")
    monkeypatch.syspath_prepend(str(installed))
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match=r"'Lost' is declared by a package as night_shift\.filters:Lost, but"):
        build_rules(Config(overrides={"filter_scheduler": {"enabled_filters": ("Lost",)}}))


def test_without_the_package_its_names_are_unknown() -> None:
    with pytest.raises(ConfigError, match="there is no 'QuietHosts'"):
        build_rules(Config(overrides={"filter_scheduler": {"enabled_filters": ("QuietHosts",)}}))
