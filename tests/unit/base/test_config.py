"""Options from files, directories, the environment and the command line: who wins, what is refused, what is told."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import pytest

from kilonova.base.config import Change, Config, ConfigError, reloadable


@dataclass(frozen=True, kw_only=True)
class Weather:
    section: ClassVar[str] = "weather"

    wind: float = 1.5
    gusts: int = 3
    sky: Literal["clear", "grey"] = "grey"
    wet: bool = False
    places: tuple[str, ...] = ("here",)
    heights: tuple[int, ...] = (1, 2)
    map: Path = Path("/maps/one")
    atlas: Path | None = None
    station: str = ""
    admin_password: str = ""


@dataclass(frozen=True, kw_only=True)
class Process:
    section: ClassVar[str] = "DEFAULT"

    debug: bool = reloadable(False)
    transport_url: str = ""


KNOWN = {"weather": set(Weather.__dataclass_fields__), "DEFAULT": set(Process.__dataclass_fields__)}


def a_file(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_defaults_need_no_file() -> None:
    assert Config().get(Weather) == Weather()


def test_values_have_the_types_of_their_fields(tmp_path: Path) -> None:
    text = "[weather]\nwind = 2\ngusts = 4\nwet = yes\nplaces = a, b\nheights = 7, 8\nmap = ~/maps\natlas = /a\n"
    found = Config([a_file(tmp_path / "a.conf", text)]).get(Weather)
    assert (found.wind, found.gusts, found.wet) == (2.0, 4, True)
    assert found.places == ("a", "b") and found.heights == (7, 8)
    assert found.map == Path.home() / "maps" and found.atlas == Path("/a")


def test_who_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [a_file(tmp_path / f"{n}.conf", f"[weather]\ngusts = {n}\nwind = {n}\n") for n in (11, 12)]
    assert Config(files).get(Weather).gusts == 12, "later files"
    a_file(tmp_path / "d/20.conf", "[weather]\ngusts = 20\n")
    a_file(tmp_path / "d/21.conf", "[weather]\ngusts = 21\n")
    a_file(tmp_path / "d/99.txt", "[weather]\ngusts = 99\n")
    a_file(tmp_path / "e/01.conf", "[weather]\nsky = clear\n")
    over = Config(files, directories=[tmp_path / "d", tmp_path / "e"]).get(Weather)
    assert (over.gusts, over.wind, over.sky) == (21, 12.0, "clear"), "directories over files, by name"
    monkeypatch.setenv("OS_WEATHER__GUSTS", "31")
    assert Config(files, directories=[tmp_path / "d"]).get(Weather).gusts == 31
    assert Config(files, {"weather": {"gusts": 41}}).get(Weather).gusts == 41
    assert Config(files, {"weather": {"gusts": None}}).get(Weather).gusts == 31, "None is not set"


@pytest.mark.parametrize(
    ("option", "value"), [("gusts", "many"), ("wind", "strong"), ("wet", "perhaps"), ("sky", "blue"), ("heights", "x")]
)
@pytest.mark.parametrize("way", ["file", "environment", "command line"])
def test_a_value_of_the_wrong_type_is_refused_wherever_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str, value: str, way: str
) -> None:
    files, overrides = [], {}
    match way:
        case "file":
            files = [a_file(tmp_path / "a.conf", f"[weather]\n{option} = {value}\n")]
        case "environment":
            monkeypatch.setenv(f"OS_WEATHER__{option.upper()}", value)
        case _:
            overrides = {"weather": {option: value}}
    with pytest.raises(ConfigError, match=rf"\[weather\] {option}"):
        Config(files, overrides).get(Weather)


def test_overrides_are_brought_to_their_type() -> None:
    found = Config(overrides={"weather": {"gusts": "5", "places": ["x", "y"], "map": "/m"}}).get(Weather)
    assert found.gusts == 5 and found.places == ("x", "y") and found.map == Path("/m")


@pytest.mark.parametrize("home", [".kilonova/kilonova.conf", ".kilonova/kilonova.conf.d/a.conf"])
def test_only_named_files_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str) -> None:
    a_file(tmp_path / home, "[weather]\ngusts = 66\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Config().get(Weather).gusts == 3


def test_a_file_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.conf"):
        Config([tmp_path / "gone.conf"])
    with pytest.raises(ConfigError, match="gone is not there"):
        Config(directories=[tmp_path / "gone"])
    with pytest.raises(ConfigError, match="INI"):
        Config([a_file(tmp_path / "a.conf", "no equals sign\n")])
    with pytest.raises(ConfigError, match="cannot be read"):
        Config([tmp_path])
    (tmp_path / "b.conf").write_bytes(b"[weather]\nstation = \xff\xfe\n")
    with pytest.raises(ConfigError, match="cannot be read"):
        Config([tmp_path / "b.conf"])


def test_a_dollar_is_explained_without_the_value(tmp_path: Path) -> None:
    text = "[DEFAULT]\ntransport_url = amqp://me:hid$den@h/\n"
    with pytest.raises(ConfigError, match=r"\$\$") as caught:
        Config([a_file(tmp_path / "a.conf", text)]).get(Process)
    assert "hid" not in str(caught.value)
    text = text.replace("$", "$$")
    assert Config([a_file(tmp_path / "a.conf", text)]).get(Process).transport_url == "amqp://me:hid$den@h/"


@pytest.mark.parametrize(
    ("text", "told", "advice"),
    [
        ("[weather]\ngust = 1\n", "[weather] has no option 'gust'", "Did you mean 'gusts'?"),
        ("[wether]\ngusts = 1\n", "no section [wether]", "Did you mean [weather]?"),
        ("[DEFAULT]\ngusts = 1\n", "no option 'gusts'", "It belongs into [weather]."),
        ("[DEFAULT]\nheigths = 1\n", "no option 'heigths'", "Did you mean 'heights' of [weather]?"),
        ("[zzz]\nqqqqqq = 1\n", "no section [zzz]", "docs/configuration.md"),
    ],
)
def test_an_unknown_name_is_told_with_the_nearest_right_one(tmp_path: Path, text: str, told: str, advice: str) -> None:
    [found] = Config([a_file(tmp_path / "a.conf", text)]).unknown(KNOWN)
    assert told in str(found) and advice in found.advice and str(tmp_path / "a.conf") in str(found)


def test_unknown_names_of_directories_environment_and_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_file(tmp_path / "d/a.conf", "[weather]\nplace = x\n[default]\ndebug = true\n")
    monkeypatch.setenv("OS_WEATHER__GUST", "1")
    monkeypatch.setenv("OS_WEATHER__GUSTS", "1")
    monkeypatch.setenv("OS_AUTH_URL", "http://x")
    monkeypatch.setenv("OS_ELSEWHERE__GUST", "1")
    config = Config(overrides={"weather": {"sku": 1}}, directories=[tmp_path / "d"])
    assert [(found.given.option, found.advice) for found in config.unknown(KNOWN)] == [
        ("place", "Did you mean 'places'?"),
        ("gust", "Did you mean 'gusts'?"),
        ("sku", "Did you mean 'sky'?"),
    ]


def test_reload_takes_over_what_can_be_and_tells_the_rest(tmp_path: Path) -> None:
    file = a_file(tmp_path / "a.conf", "[DEFAULT]\ntransport_url = amqp://me:old@h/\n[weather]\nadmin_password = one\n")
    config = Config([file])
    config.get(Process), config.get(Weather)
    assert config.reload() == []
    text = "[DEFAULT]\ndebug = true\ntransport_url = amqp://me:new@i/\n[weather]\nadmin_password = two\n"
    a_file(file, text)
    waiting = [
        Change("DEFAULT", "transport_url", "amqp://me:***@h/", "amqp://me:***@i/", taken_over=False),
        Change("weather", "admin_password", "***", "***", taken_over=False),
    ]
    assert config.reload() == [Change("DEFAULT", "debug", False, True, taken_over=True), *waiting]
    assert config.get(Process) == Process(debug=True, transport_url="amqp://me:old@h/")
    assert config.reload() == waiting, "told again until the restart"


@pytest.mark.parametrize("text", ["no equals sign\n", "[weather]\ngusts = many\n[DEFAULT]\ndebug = true\n"])
def test_after_a_reload_that_fails_all_is_as_it_was(tmp_path: Path, text: str) -> None:
    file = a_file(tmp_path / "a.conf", "[weather]\ngusts = 4\n")
    config = Config([file])
    before = config.get(Process), config.get(Weather)
    a_file(file, text)
    with pytest.raises(ConfigError):
        config.reload()
    assert (config.get(Process), config.get(Weather)) == before


def test_what_is_shown_has_no_secrets() -> None:
    given = {"weather": {"admin_password": "hidden"}, "DEFAULT": {"transport_url": "nats://me:hidden@h:4222"}}
    config = Config(overrides=given)
    config.get(Weather), config.get(Process)
    shown = config.shown()
    assert "hidden" not in str(shown)
    assert shown["weather"]["admin_password"] == "***" and shown["weather"]["gusts"] == 3
    assert shown["DEFAULT"]["transport_url"] == "nats://me:***@h:4222"
