"""The configuration reference says what the option classes say."""

from pathlib import Path

from kilonova.cli import docs

SOURCE = '''
class Options:
    """``[weather]`` of kilonova.conf.

    Only for the brave.
    """

    section: ClassVar[str] = "weather"

    wind: float = 1.5
    """Metres a second,
    at ten metres | height."""

    sky: Literal["clear", "grey"] = "grey"
    """Its colour."""

    gusts: tuple[str, ...] = ("a", "b")
    rain_bytes: int = 2 * 1024
    """How wet."""

    loud: bool = reloadable(False)
    """Say more."""


class NoOptions:
    sections: str = "no"
'''


def test_fields_types_defaults_and_docstrings_are_read(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/weather.py").write_text(SOURCE)
    [section] = docs.sections(tmp_path)
    assert section.name == "weather"
    assert section.module == "kilonova.deep.weather"
    text = docs.render([section])
    assert "\nOnly for the brave.\n" in text
    assert "| `wind` | number | `1.5` | Metres a second, at ten metres \\| height. |" in text
    assert "| `sky` | one of `clear`, `grey` | `grey` | Its colour. |" in text
    assert "| `gusts` | list, separated by commas | `a,b` |  |" in text
    assert "| `rain_bytes` | whole number | `2048` | How wet. |" in text
    assert "| `loud` | true or false | `false` | Say more. Taken over on SIGHUP. |" in text


def test_every_option_of_the_product_is_documented() -> None:
    found = list(docs.sections(docs.PACKAGE))
    assert {"up", "api", "compute", "tasks"} <= {section.name for section in found}
    silent = [f"{s.module} {option.name}" for s in found for option in s.options if not option.text]
    assert silent == []
