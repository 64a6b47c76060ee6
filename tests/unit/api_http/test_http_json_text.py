"""Bodies that are JSON and yet not taken."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kilonova.api.http.json_text import MAX_DEPTH, parse
from kilonova.model.errors import BadRequest


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"{", "line 1 column 2"),
        (b"", "not valid JSON"),
        (b"{'a': 1}", "not valid JSON"),
        (b'{"a": 1,}', "not valid JSON"),
        (b'{"a": 1} x', "not valid JSON"),
        (b'\xef\xbb\xbf{"a": 1}', "not valid JSON"),
        (b'"\xff"', "not valid UTF-8 at byte 1"),
        (b'"\xed\xa0\x80"', "not valid UTF-8"),
        (b'{"a": 1, "a": 2}', "'a' stands twice"),
        (b'{"o": {"k": 1, "b": 2, "k": 1}}', "'k' stands twice"),
        (b'{"a": "x\\u0000y"}', "attribute a: it must not contain a NUL"),
        (b'{"a": [{"b": "\\u0000"}]}', "attribute a[0].b"),
        (b'{"\\u0000": 1}', "NUL"),
        (b'{"a": "x\ny"}', "not valid JSON"),
        (b'{"a": "\\ud800"}', "attribute a: it contains half a surrogate pair"),
        (b'{"a": "\\udc00\\ud800"}', "surrogate"),
        (b'{"\\ud800": 1}', "surrogate"),
        (b"[9223372036854775808]", "too large"),
        (b"[-9223372036854775809]", "too large"),
        (b"[" + b"9" * 5000 + b"]", "too large"),
        (b"[1e999]", "too large"),
        (b"[-1e999]", "too large"),
        (b"[NaN]", "NaN"),
        (b"[Infinity]", "Infinity"),
        (b"[" * 65 + b"]" * 65, "nested more than 64"),
        (b"[" * 100000, "nested more than 64"),
        (b'{"a":' * 100000, "nested more than 64"),
        (b'[{"a":' * 33 + b"1" + b"}]" * 33, "nested more than 64"),
    ],
)
def test_refused(raw: bytes, words: str) -> None:
    with pytest.raises(BadRequest) as caught:
        parse(raw)
    assert words in caught.value.detail
    assert len(caught.value.detail) < 300


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b"[9223372036854775807, -9223372036854775808, 0, -0]", [2**63 - 1, -(2**63), 0, 0]),
        (b'"\\ud83d\\ude00"', "😀"),
        (b'"\\\\u0000"', "\\u0000"),
        (b"[" * MAX_DEPTH + b"]" * MAX_DEPTH, None),
        (json.dumps({"a": "[{" * 1000}).encode(), {"a": "[{" * 1000}),
        (json.dumps([[]] * 1000).encode(), [[]] * 1000),
        (json.dumps(['\\"[', "]"] * 100).encode(), ['\\"[', "]"] * 100),
        (b"1e10", 1e10),
        (b" null ", None),
    ],
)
def test_taken(raw: bytes, value: Any) -> None:
    read = parse(raw)
    if value is not None:
        assert read == value


_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), inner)
    ),
    max_leaves=30,
)


@given(_json, st.booleans())
def test_what_is_written_is_read(value: Any, ascii_only: bool) -> None:
    assert parse(json.dumps(value, ensure_ascii=ascii_only).encode()) == value


@given(st.binary(max_size=200))
def test_anything_else_is_a_bad_request(raw: bytes) -> None:
    try:
        value = parse(raw)
    except BadRequest as error:
        assert error.detail
    else:
        assert json.loads(raw) == value
