"""From a message to the method it names.

The protocol class in `kilonova.rpcapi` says what can be called: its public async methods, and nothing
else that the endpoint may have. Arguments are read straight from JSON into the types of the method's
hints; hints are resolved once, when the service starts, so a mistake in them is found there.
"""

import copy
import inspect
import typing
from collections.abc import Awaitable, Callable
from functools import cache, partial
from typing import Any

import msgspec

from kilonova.model.errors import BadArguments, UnknownMethod, UnsupportedVersion
from kilonova.rpc.envelope import UNREADABLE, VERSION_METHOD, Message, Offer
from kilonova.rpc.versions import parse, satisfies


def methods_of(protocol: type) -> tuple[str, ...]:
    """The names that `protocol` declares as callable from afar: its public async methods."""
    names = {
        name
        for cls in protocol.__mro__
        if cls not in (object, typing.Protocol, typing.Generic)
        for name, member in vars(cls).items()
        if not name.startswith("_") and inspect.iscoroutinefunction(member)
    }
    return tuple(sorted(names))


@cache  # by class: a process with thousands of simulated hosts has thousands of endpoints of one protocol
def _readers_of(protocol: type) -> dict[str, msgspec.json.Decoder[msgspec.Struct]]:
    """What reads the arguments of each method from JSON."""
    return {
        name: msgspec.json.Decoder(_struct_of(f"{protocol.__name__}.{name}", getattr(protocol, name)))
        for name in methods_of(protocol)
    }


def _struct_of(name: str, declared: Callable[..., Any]) -> type[msgspec.Struct]:
    """The arguments of a method as a Struct; an argument that it does not know is an error."""
    hints = typing.get_type_hints(declared, include_extras=True)
    fields: list[Any] = []
    for parameter in list(inspect.signature(declared).parameters.values())[1:]:
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise TypeError(f"{name}: {parameter} cannot be sent; every argument needs a name")
        kind = hints.get(parameter.name, Any)
        if parameter.default is parameter.empty:
            fields.append((parameter.name, kind))
        else:
            # Each call its own copy: a default may be a list.
            default = msgspec.field(default_factory=partial(copy.copy, parameter.default))
            fields.append((parameter.name, kind, default))
    return msgspec.defstruct(name.replace(".", "_"), fields, kw_only=True, forbid_unknown_fields=True)


class Dispatcher:
    """Calls the endpoint's methods, and refuses what it does not offer."""

    def __init__(self, protocol: type, endpoint: object, *, topic: str, host: str, version: str) -> None:
        """
        Raises:
            TypeError: `endpoint` does not implement `protocol`, or a method's hints cannot be used.
        """
        parse(version)
        self._topic = topic
        self._version = version
        self._readers = _readers_of(protocol)
        self._functions: dict[str, Callable[..., Awaitable[Any]]] = {}
        for name in self._readers:
            function = getattr(endpoint, name, None)
            # An endpoint that inherits the protocol has its empty methods; calling one would answer None.
            if function is None or getattr(function, "__func__", None) is getattr(protocol, name):
                raise TypeError(f"{type(endpoint).__name__} does not implement {protocol.__name__}.{name}")
            self._functions[name] = function
        self.methods = frozenset(self._functions) | {VERSION_METHOD}
        self._offer = Offer(topic=topic, host=host, version=version, methods=tuple(self._functions))

    async def dispatch(self, message: Message) -> Any:
        """What the method returns.

        Raises:
            UnknownMethod, UnsupportedVersion, BadArguments: the message does not fit what is offered.
            Exception: whatever the method raises.
        """
        if message.method == VERSION_METHOD:
            return self._offer
        if not satisfies(message.version, self._version):
            raise UnsupportedVersion(topic=self._topic, asked=message.version, offered=self._version)
        function = self._functions.get(message.method)
        if function is None:
            raise UnknownMethod(topic=self._topic, method=message.method)
        try:
            arguments = self._readers[message.method].decode(message.args)
        except UNREADABLE as error:
            raise BadArguments(topic=self._topic, method=message.method, detail=str(error)) from error
        return await function(**msgspec.structs.asdict(arguments))
