"""Messages and errors on the wire."""

import dataclasses
import inspect
import json
from typing import Any

import msgspec
import pytest

from kilonova.model import errors
from kilonova.model.errors import CloudError, Conflict, MessageTooLarge, NotFound, RemoteFault
from kilonova.rpc.envelope import (
    Message,
    Reply,
    WireError,
    decode_message,
    encode,
    pack,
    raised_error,
    unpack,
    wire_error,
)

ALL_ERRORS = [
    cls
    for _, cls in inspect.getmembers(errors, inspect.isclass)
    if issubclass(cls, CloudError) and "code" in cls.__dict__ and cls is not CloudError
]


def an_error(cls: type[CloudError]) -> CloudError:
    """An error with a value in each of its facts."""
    samples: dict[str, Any] = {
        "str": "words",
        "int": 3,
        "float": 1.5,
        "bool": True,
        "list[str]": ["a"],
        "dict[str, int]": {"a": 1},
    }
    return cls(**{field.name: samples.get(str(field.type), "words") for field in dataclasses.fields(cls)})


@pytest.mark.parametrize("cls", ALL_ERRORS, ids=lambda cls: cls.__name__)
def test_every_error_comes_out_as_it_went_in(cls: type[CloudError]) -> None:
    sent = an_error(cls)
    wire = msgspec.json.decode(msgspec.json.encode(wire_error(sent)), type=WireError)
    raised = raised_error(wire)
    assert type(raised) is cls
    assert (raised.facts(), raised.message) == (sent.facts(), sent.message)


def test_error_of_another_kind_becomes_a_remote_fault() -> None:
    raised = raised_error(wire_error(ZeroDivisionError("by zero")))
    assert isinstance(raised, RemoteFault)
    assert (raised.type, raised.detail) == ("ZeroDivisionError", "by zero")


def test_error_that_is_not_known_here_keeps_its_sentence() -> None:
    raised = raised_error(WireError(code="teapot.short", facts={"height": 3}, message="The teapot is short."))
    assert isinstance(raised, RemoteFault)
    assert (raised.type, raised.detail) == ("teapot.short", "The teapot is short.")


def test_error_that_lacks_a_fact_keeps_its_sentence() -> None:
    raised = raised_error(WireError(code="not_found", facts={"kind": "Server"}, message="Server gone."))
    assert isinstance(raised, RemoteFault)
    assert raised.detail == "Server gone."


def test_error_with_an_unknown_fact_is_still_itself() -> None:
    facts = {"kind": "Server", "id": "1", "added_in_a_newer_version": True}
    assert isinstance(raised_error(WireError(code="not_found", facts=facts)), NotFound)


def test_fact_that_json_cannot_carry_does_not_cost_the_error() -> None:
    raised = raised_error(wire_error(Conflict(detail=object())))  # type: ignore[arg-type]
    assert isinstance(raised, RemoteFault)
    assert raised.type == "Conflict"


def test_words_that_json_cannot_carry_are_mended() -> None:
    raised = raised_error(msgspec.json.decode(msgspec.json.encode(wire_error(OSError("a\ud800b"))), type=WireError))
    assert isinstance(raised, RemoteFault)
    assert raised.detail == "a?b"


def test_remote_fault_passes_through_unchanged() -> None:
    raised = raised_error(wire_error(RemoteFault(type="libvirtError", detail="no domain")))
    assert isinstance(raised, RemoteFault)
    assert (raised.type, raised.detail) == ("libvirtError", "no domain")


def test_message_is_one_json_object() -> None:
    body = encode(Message(msg_id="m", method="spawn", version="1.0", args=pack({"epoch": 3})), 1000)
    assert json.loads(body)["args"] == {"epoch": 3}
    assert unpack(decode_message(body).args) == {"epoch": 3}


def test_limit_counts_the_bytes_that_travel() -> None:
    reply = Reply(msg_id="m", result=pack("ü" * 100))
    size = len(encode(reply, 10_000))
    assert len(encode(reply, size)) == size
    with pytest.raises(MessageTooLarge) as caught:
        encode(reply, size - 1)
    assert (caught.value.size, caught.value.limit) == (size, size - 1)


def test_field_of_a_newer_envelope_is_ignored() -> None:
    body = b'{"msg_id": "m", "method": "a", "version": "1.0", "args": {}, "trace": [1]}'
    assert decode_message(body).method == "a"
