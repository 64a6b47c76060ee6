"""What fits a Struct and what does not, and that the message names the field."""

from typing import Annotated, Any

import pytest
from http_sample import SERVER, Nic, StrictQuery, ThingCreate, ThingQuery
from msgspec import UNSET, Struct, UnsetType, field

from kilonova.api.http.microversions import Version
from kilonova.api.http.schema import QuerySchema, Schema, Since, Until, convert, parse_query
from kilonova.model.errors import BadRequest

SCHEMA = Schema(ThingCreate)


def refusal(value: Any, version: str = "2.96", kind: Any = None) -> str:
    with pytest.raises(BadRequest) as caught:
        (Schema(kind) if kind else SCHEMA).read(value, Version.parse(version), at="thing")
    return caught.value.detail


def test_the_handler_gets_the_struct_it_asked_for_in_every_band() -> None:
    for version in ("2.1", "2.32", "2.52", "2.57", "2.96"):
        read = SCHEMA.read(
            {"name": "a", "networks": [{"uuid": SERVER}], "os:notes": {"k": "v"}}, Version.parse(version)
        )
        assert isinstance(read, ThingCreate)
        assert isinstance(read.networks[0], Nic)
        assert (read.notes, read.tags, read.files) == ({"k": "v"}, [], [])


def test_one_type_a_band_and_not_one_a_version() -> None:
    assert SCHEMA.at(Version(2, 52)) is SCHEMA.at(Version(2, 56))
    assert SCHEMA.at(Version(2, 52)) is not SCHEMA.at(Version(2, 57))
    assert Schema(StrictQuery).at(Version(2, 66)) is Schema(StrictQuery).at(Version(2, 90)) is StrictQuery


@pytest.mark.parametrize(("version", "fits"), [("2.1", False), ("2.51", False), ("2.52", True), ("2.96", True)])
def test_a_field_from_some_version_on(version: str, fits: bool) -> None:
    body = {"name": "a", "tags": ["x"]}
    if fits:
        assert SCHEMA.read(body, Version.parse(version)).tags == ["x"]
    else:
        assert refusal(body, version) == "Additional properties are not allowed ('tags' was unexpected) in thing."


@pytest.mark.parametrize(("version", "fits"), [("2.1", True), ("2.56", True), ("2.57", False)])
def test_a_field_up_to_some_version(version: str, fits: bool) -> None:
    body = {"name": "a", "files": ["x"]}
    if fits:
        assert SCHEMA.read(body, Version.parse(version)).files == ["x"]
    else:
        assert "('files' was unexpected)" in refusal(body, version)


def test_a_newer_field_is_unknown_even_with_its_default_value() -> None:
    assert "('tags' was unexpected)" in refusal({"name": "a", "tags": []}, "2.1")


def test_bands_hold_inside_lists_unions_and_dicts() -> None:
    nic = {"uuid": SERVER, "tag": "t"}
    assert SCHEMA.read({"name": "a", "networks": [nic], "nics": {"x": nic}}, Version(2, 32)).nics["x"].tag == "t"
    assert refusal({"name": "a", "networks": [nic]}, "2.31") == (
        "Additional properties are not allowed ('tag' was unexpected) in thing.networks[0]."
    )
    assert "('tag' was unexpected) in thing.nics" in refusal({"name": "a", "nics": {"x": nic}}, "2.31")


class Tree(Struct, forbid_unknown_fields=True, kw_only=True):
    """Contains itself."""

    children: list["Tree"] = []
    leaf: Annotated[str | UnsetType, Since("2.5"), Until("2.7")] = field(name="Leaf", default=UNSET)


def test_a_struct_that_contains_itself_does_not_go_round_for_ever() -> None:
    schema = Schema(Tree)
    assert schema.read({"children": [{}]}, Version(2, 1)).leaf is UNSET
    assert schema.read({"Leaf": "x"}, Version(2, 6)).leaf == "x"
    for outside in (Version(2, 4), Version(2, 8)):
        with pytest.raises(BadRequest, match="'Leaf' was unexpected"):
            schema.read({"Leaf": "x"}, outside)


class NeedsDefault(Struct):
    name: Annotated[str, Since("2.5")]


def test_a_field_that_does_not_always_exist_needs_a_default() -> None:
    with pytest.raises(TypeError, match=r"name does not exist in 2\.1"):
        Schema(NeedsDefault).at(Version(2, 1))


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, ["thing", "'name' is a required property"]),
        ({"name": 1}, ["thing.name", "expected `str`", "`int`"]),
        ({"name": ""}, ["thing.name", "length >= 1"]),
        ({"name": "x" * 21}, ["thing.name", "length <= 20"]),
        ({"name": "a", "size": "1"}, ["thing.size", "expected `int`"]),
        ({"name": "a", "size": 101}, ["thing.size", "<= 100"]),
        ({"name": "a", "size": True}, ["thing.size", "expected `int`"]),
        ({"name": "a", "nics": {"x": {}}}, ["thing.nics", "'uuid' is a required property"]),
        ({"name": "a", "networks": [{"uuid": "1"}]}, ["thing.networks[0].uuid", "not a UUID"]),
        ({"name": "a", "networks": [{"uuid": SERVER.upper()}]}, ["networks[0].uuid", "not a UUID"]),
        ({"name": "a", "networks": [{"uuid": SERVER + "\n"}]}, ["networks[0].uuid", "not a UUID"]),
        ({"name": "a", "os:notes": {"k": 1}}, ["thing.os:notes", "expected `str`"]),
        ({"name": "a", "wat": 1}, ["'wat' was unexpected", "in thing"]),
        ([], ["thing", "expected `object`"]),
        (None, ["thing", "expected `object`"]),
        ("x", ["thing", "expected `object`"]),
    ],
)
def test_a_refusal_names_the_field(body: Any, words: list[str]) -> None:
    message = refusal(body)
    for word in words:
        assert word in message, message


def test_what_a_client_sent_comes_back_short_and_harmless() -> None:
    message = refusal({"name": "a", "x" * 500 + "\n\x1b[2J": 1})
    assert len(message) < 200
    assert "\x1b" not in message and "\n" not in message


def test_a_part_of_a_body_is_read_by_a_type_chosen_late() -> None:
    assert convert("SOFT", str, at="reboot") == "SOFT"
    with pytest.raises(BadRequest, match=r"field/attribute reboot: expected `str`, got `int`"):
        convert(1, str, at="reboot")


# ---- queries ----------------------------------------------------------------------------------------------


def read_query(text: bytes, kind: Any = ThingQuery, version: str = "2.96") -> Any:
    return QuerySchema(kind).read_pairs(parse_query(text), Version.parse(version))


def test_query_values_become_what_the_struct_says() -> None:
    read = read_query(b"limit=5&deep=true&count=7&sort_key=a&sort_key=b&marker=a%20b+c")
    assert (read.limit, read.deep, read.count, read.sort_key, read.marker) == ("5", True, 7, ["a", "b"], "a b c")


def test_one_value_of_a_list_is_a_list() -> None:
    assert read_query(b"sort_key=a").sort_key == ["a"]


def test_unknown_parameters_are_ignored_or_refused_as_the_struct_says() -> None:
    assert read_query(b"what=1").limit is None
    with pytest.raises(BadRequest, match="'what' was unexpected"):
        read_query(b"what=1", StrictQuery)


def test_parameters_of_another_version_are_like_unknown_ones() -> None:
    assert read_query(b"newer=1", ThingQuery, "2.66").newer == "1"
    assert read_query(b"newer=1", ThingQuery, "2.65").newer is None
    assert read_query(b"newer=1", StrictQuery, "2.66").newer == "1"
    with pytest.raises(BadRequest, match="'newer' was unexpected"):
        read_query(b"newer=1", StrictQuery, "2.65")


@pytest.mark.parametrize(
    ("query", "words"),
    [
        (b"limit=1&limit=2", "limit': it may be given only once"),
        (b"count=x", "query parameters count: expected `int`"),
        (b"count=", "query parameters count: expected `int`"),
        (b"count=-1", "query parameters count"),
        (b"deep=perhaps", "query parameters deep: expected `bool`"),
        (b"marker=%00", "NUL"),
        (b"marker=%ff", "UTF-8"),
        (b"marker=\xff", "UTF-8"),
        (b"a=1&" * 201, "more than 200 parameters"),
    ],
)
def test_a_bad_query_is_refused_by_name(query: bytes, words: str) -> None:
    with pytest.raises(BadRequest) as caught:
        read_query(query)
    assert words in caught.value.detail
