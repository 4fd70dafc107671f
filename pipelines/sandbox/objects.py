"""The table of one side: which of its objects the other side may refer to, and what it has from there.

Both sides share how objects are described (`Kind`), numbered and found again; `candidate` and `judge` differ in what
they let the other side do with them.
"""

import asyncio
import importlib
import sys
import types
from collections.abc import AsyncIterator, Iterator
from typing import Any

from pipelines.sandbox import exceptions, handles, wire
from pipelines.sandbox.handles import Handle, Link
from pipelines.sandbox.peer import Caught, Gone, Peer

MOST_EXPORTS = 200_000
CHANGEABLE = {list: "list", dict: "dict", set: "set", bytearray: "bytearray"}
WHOLE = {
    int: "int",
    float: "float",
    complex: "complex",
    str: "str",
    bytes: "bytes",
    tuple: "tuple",
    frozenset: "frozenset",
}
WHOLE_TYPES = {name: kind for kind, name in WHOLE.items()}
TYPES = (*WHOLE, *CHANGEABLE, bool, object, type(None), range, slice)
LIBRARY_TYPES = {
    "collections": ("Counter", "OrderedDict", "defaultdict", "deque"),
    "fractions": ("Fraction",),
    "decimal": ("Decimal",),
    "datetime": ("date", "datetime", "time", "timedelta"),
}


class SolutionError(RuntimeError):
    """An exception of the solution that no test could name."""


class Quit(Gone):
    """The solution asked to end the process (SystemExit, KeyboardInterrupt): the test has failed."""


class Objects:
    """What `Peer` needs of a side, less what is done on request."""

    strict = False

    def __init__(self) -> None:
        self.peer: Peer
        self.exported: list[Any] = []
        self.adopted: dict[int, Any] = {}
        self._numbers: dict[int, int] = {}
        self._kinds: dict[int, tuple[Any, ...]] = {}
        self._homes: dict[int, tuple[Any, int]] = {}

    def needs(self, error: BaseException) -> bool:  # noqa: ARG002 - the solution has no tests
        """Whether no object of the other side may swallow it."""
        return False

    def printed(self) -> str:
        return ""

    def hear(self, text: str) -> None:
        """What the other side printed meanwhile."""

    # Outward

    def encode_other(self, value: Any, encoder: wire.Encoder, depth: int) -> list[Any]:
        kind = type(value)
        home = self._home_number(value)
        if home is not None:
            return ["m", home]
        if issubclass(kind, types.ModuleType):
            return ["mo", str(value.__name__)]
        if issubclass(kind, type) and _is_library_type(value):
            return ["k", value.__module__, value.__qualname__]
        if issubclass(kind, BaseException):
            return ["e", self.encode_error(value, encoder)]
        base = next((base for base in WHOLE if issubclass(kind, base)), None)
        if base is None:
            return self.export(value)
        content: Any = tuple(tuple.__iter__(value)) if base is tuple else _whole(base, value)
        inner = encoder.several(content, depth) if base is tuple else encoder.encode(content, depth)
        return ["x", WHOLE[base], inner, self.export(value), encoder.encode(kind, depth)]

    def _home_number(self, value: Any) -> int | None:
        """The number under which the other side knows an object of its own."""
        if isinstance(value, Handle):
            return value._link_.number
        if id(value) in self._homes:
            return self._homes[id(value)][1]
        return value._whole_._link_.number if getattr(type(value), "_whole_", self) is None else None

    def export(self, value: Any) -> list[Any]:
        """`[h, number, kind number, kind | None]`; the kind is described the first time only."""
        number = self._numbers.get(id(value))
        if number is None:
            if len(self.exported) >= MOST_EXPORTS:
                raise wire.WireError("too many objects")
            number = self._numbers[id(value)] = len(self.exported)
            self.exported.append(value)
        return ["h", number, describe(value)]

    def mine(self, number: Any) -> Any:
        if type(number) is not int or not 0 <= number < len(self.exported):
            raise wire.WireError("no such object")
        return self.exported[number]

    # Inward

    def decode_other(self, tag: str, body: list[Any], decoder: wire.Decoder, depth: int) -> Any:
        if tag == "m":
            return self.mine(body[0])
        if tag == "h":
            return self.adopt(body[0], body[1])
        if tag == "mo":
            return self.module(body[0])
        if tag == "k":
            return self.library_type(body[0], body[1])
        if tag == "e":
            return self.decode_error(body[0], decoder)
        if tag == "x":
            return self._adopt_whole(body, decoder, depth)
        raise wire.WireError(f"unknown tag {tag[:20]!r}")

    def adopt(self, number: Any, described: Any) -> Any:
        """The stand-in for object `number` of the other side; the same one each time."""
        if type(number) is not int:
            raise wire.WireError("no such object")
        if number not in self.adopted:
            if len(self.adopted) >= MOST_EXPORTS:
                raise wire.WireError("too many objects")
            self.adopted[number] = self._stand_in(number, described)
        elif isinstance(self.adopted[number], Handle):
            self.adopted[number]._link_.came += 1
        return self.adopted[number]

    def _stand_in(self, number: int, described: Any) -> Any:
        role, name, special, base, parents, fields = described
        if not isinstance(name, str) or base not in ("", *CHANGEABLE.values()):
            raise wire.WireError("no such kind")
        key = (role, name, tuple(special), base, tuple(fields))
        is_class = role == "class"
        kind = self._kinds.get(hash(key), (None, None))
        if kind[0] != key:
            kind = self._kinds[hash(key)] = (
                key,
                handles.handle_class(name, special, fields, is_class=is_class, base=base),
            )
        link = Link(self.peer, number, name, base, is_class=is_class, strict=self.strict)
        stand_in = kind[1](link)
        made: Any = stand_in
        if role == "generator":
            made = _generate(self.peer, stand_in)
        elif role == "coroutine":
            made = _await(self.peer, stand_in)
        elif role == "async generator":
            made = _generate_async(self.peer, stand_in)
        elif role == "error":
            made = _error_class(name, parents)
        if made is not stand_in:
            self._homes[id(made)] = (made, number)
        return made

    def _adopt_whole(self, body: list[Any], decoder: wire.Decoder, depth: int) -> Any:
        base_name, content, exported, kind = body
        base = WHOLE_TYPES[base_name]
        value = tuple(decoder.several(content, depth)) if base is tuple else decoder.decode(content, depth)
        if type(value) is not base:
            raise wire.WireError("content of another type")
        number, described = exported[1], exported[2]
        found = self.adopted.get(number)
        if found is None or not isinstance(found, base):
            home = decoder.decode(kind, depth)
            made = handles.whole_class(str(described[1]), base, described[2], home)
            found = base.__new__(made, value)
            link = Link(self.peer, number, str(described[1]), "", is_class=False, strict=self.strict)
            found._whole_ = Handle(link)
            self.adopted[number] = found
        return found

    def module(self, name: Any) -> Any:
        return importlib.import_module(str(name))

    def library_type(self, module: Any, name: Any) -> Any:
        """A class both sides have; WireError for any that is not listed."""
        if module == "builtins":
            for kind in TYPES:
                if kind.__name__ == name:
                    return kind
            if name in exceptions.BUILT_IN:
                return exceptions.BUILT_IN[name]
        if name in LIBRARY_TYPES.get(str(module), ()):
            return getattr(importlib.import_module(module), name)
        found = exceptions.library(module, name)
        if found is None:
            raise wire.WireError("no such class")
        return found

    def encode_error(self, error: BaseException, encoder: wire.Encoder) -> Any:
        return exceptions.encode(error, encoder)

    def decode_error(self, item: Any, decoder: wire.Decoder) -> BaseException:
        quits, classes, arguments, attributes, text, cause = item
        if quits:
            return self.quits(str(text))
        kind: Any = next(filter(None, (self._error_kind(entry, decoder) for entry in classes)), SolutionError)
        values = tuple(decoder.several(arguments, 0))
        made = _make_error(kind, values if kind is not SolutionError else (str(text),))
        for name, value in attributes:
            if isinstance(name, str) and not name.startswith("_") and type(made).__dict__.get(name) is None:
                made.__dict__[name] = decoder.decode(value)
        made.__cause__ = self.decode_error(cause, decoder) if cause else None
        return made

    def quits(self, text: str) -> BaseException:
        return Quit(text)

    def _error_kind(self, entry: Any, decoder: wire.Decoder) -> Any:
        module, name, reference = entry
        kind = decoder.decode(reference) if reference else None
        if kind is None:
            kind = exceptions.BUILT_IN.get(name) if module == "builtins" else exceptions.library(module, name)
        return kind if isinstance(kind, type) and issubclass(kind, Exception) else None


def describe(value: Any) -> list[Any]:
    """`[role, class name, special methods, base, parents, fields of a dataclass]`: what its stand-in looks like."""
    kind = type(value)
    fields = [str(name) for name in _look_up(value if issubclass(kind, type) else kind, "__dataclass_fields__") or ()]
    if issubclass(kind, type):
        role = "error" if issubclass(value, BaseException) else "class"
        parents = [parent.__name__ for parent in value.__mro__] if role == "error" else []
        return [role, value.__name__, _special(kind), "", parents, fields]
    roles = {
        types.GeneratorType: "generator", types.CoroutineType: "coroutine", types.AsyncGeneratorType: "async generator",
    }  # fmt: skip
    base = next((name for base, name in CHANGEABLE.items() if issubclass(kind, base)), "")
    return [roles.get(kind, "object"), kind.__name__, _special(kind), base, [], fields]


_SPECIAL: dict[int, tuple[type, list[str]]] = {}


def _special(kind: type) -> list[str]:
    """Names of the special methods that a class has beyond `object`."""
    known = _SPECIAL.get(id(kind))
    if known is None or known[0] is not kind:
        found = [word for word in handles.SPECIAL if _look_up(kind, word) is not _look_up(object, word)]
        known = _SPECIAL[id(kind)] = (kind, [word for word in found if _look_up(kind, word) is not None])
    return known[1]


def _look_up(kind: type, word: str) -> Any:
    for parent in kind.__mro__:
        if word in parent.__dict__:
            return parent.__dict__[word]
    return None


def _is_library_type(kind: Any) -> bool:
    """Whether `Objects.library_type` finds this very class by its name."""
    module, name = getattr(kind, "__module__", None), getattr(kind, "__name__", None)
    if any(kind is known for known in TYPES) or exceptions.BUILT_IN.get(str(name)) is kind:
        return True
    if name in LIBRARY_TYPES.get(str(module), ()):
        return getattr(sys.modules.get(str(module)), str(name), None) is kind
    return exceptions.library(module, name) is kind


def _whole(base: type, value: Any) -> Any:
    """The plain value inside an instance of a derived class, whatever that class overrides."""
    if base in (int, float, complex):
        return base.__pos__(value)  # pyright: ignore[reportAttributeAccessIssue]
    if base is str:
        return str.__str__(value)
    if base is bytes:
        return bytes.__getitem__(value, slice(None))
    return frozenset(frozenset.__iter__(value))


def _make_error(kind: Any, values: tuple[Any, ...]) -> BaseException:
    try:
        made = kind(*values)
    except (TypeError, ValueError, AttributeError, LookupError):
        made = kind.__new__(kind, *values)
    made.args = values
    return made


def _error_class(name: str, parents: list[Any]) -> type[Exception]:
    """An exception class of the solution, to be named in `except` and made by tests."""
    base = next((exceptions.BUILT_IN[word] for word in parents if word in exceptions.BUILT_IN), Exception)

    def initialise(self: Any, *arguments: Any, **keywords: Any) -> None:
        self.args = arguments
        self.__dict__.update(keywords)

    return type(name if name.isidentifier() else "Unnamed", (base,), {"__init__": initialise})


def _generate(peer: Peer, handle: Any) -> Iterator[Any]:
    """A generator here that is driven by the one over there."""
    action, given = "send", None
    while True:
        try:
            item = peer.ask(action, handle, given)
        except StopIteration as stop:
            return stop.value
        action, given = "send", None
        with Caught() as caught:
            given = yield item
        if isinstance(caught.error, GeneratorExit):
            if peer.side.strict and peer.at_rest:  # else it may be a collection of garbage amid a message
                peer.ask("close", handle)
            return None
        if caught.error:
            action, given = "throw", caught.error


async def _await(peer: Peer, handle: Any) -> Any:
    await asyncio.sleep(0)
    return peer.ask("await", handle)


async def _generate_async(peer: Peer, handle: Any) -> AsyncIterator[Any]:
    while True:
        try:
            item = peer.ask("await special", handle, "__anext__")
        except StopAsyncIteration:
            return
        yield item
