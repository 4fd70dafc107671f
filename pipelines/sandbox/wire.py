"""What crosses between candidate and judge: length-prefixed JSON of plain data, with tags; never code, never pickle.

A frame is four bytes of length (big-endian) and so many bytes of JSON. None, bool, float, str and small int stand for
themselves; all else is a list whose first entry is a tag. A container that can change has a number: it is written once
a message and referred to afterwards, so that aliases and cycles survive and changes can be written back. What is no
plain data becomes a handle, which `Hooks` knows how to make and to read.
"""

import json
import os
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Sequence
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from typing import Any, Protocol

HEADER_BYTES = 4
SMALL = 1 << 62
LARGEST_BITS = 1 << 20
DEEPEST = 100


class WireError(Exception):
    """A frame that is too long, cut off, or says something that no honest side says."""


class Hooks(Protocol):
    """How one side treats what is no plain data."""

    def encode_other(self, value: Any, encoder: "Encoder", depth: int) -> list[Any]: ...

    def decode_other(self, tag: str, body: list[Any], decoder: "Decoder", depth: int) -> Any: ...


def write_frame(descriptor: int, message: object, limit: int) -> None:
    """Send one message; WireError before a byte is sent if it is longer than `limit`, OSError if nobody listens."""
    data = json.dumps(message, separators=(",", ":"), check_circular=False).encode()
    if len(data) > limit:
        raise WireError(f"a value of {len(data)} bytes, {limit} are allowed")
    rest = memoryview(len(data).to_bytes(HEADER_BYTES, "big") + data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def read_frame(descriptor: int, limit: int) -> Any:
    """The next message; EOFError if the other side is gone."""
    size = int.from_bytes(_read(descriptor, HEADER_BYTES), "big")
    if size > limit:
        raise WireError(f"a value of {size} bytes, {limit} are allowed")
    try:
        return json.loads(_read(descriptor, size))
    except (ValueError, RecursionError) as error:
        raise WireError(f"not a message: {error}") from error


def _read(descriptor: int, size: int) -> bytes:
    parts: list[bytes] = []
    while size:
        part = os.read(descriptor, min(size, 1 << 20))
        if not part:
            raise EOFError("the other side is gone")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


class Encoder:
    """One message on its way out. `known` are containers that the other side has already, by their numbers."""

    def __init__(self, hooks: Hooks, known: Sequence[Any] = ()) -> None:
        self.hooks = hooks
        self.containers = list(known)
        self._numbers = {id(item): number for number, item in enumerate(self.containers)}

    def encode(self, value: Any, depth: int = 0) -> Any:
        kind = type(value)
        if value is None or kind in (bool, float, str):
            return value
        if kind is int:
            return value if -SMALL < value < SMALL else _large(value)
        if depth > DEEPEST:
            raise WireError("nested too deeply")
        write = WRITERS.get(kind)
        if write is not None:
            return write(self, value, depth + 1)
        return self.hooks.encode_other(value, self, depth + 1)

    def several(self, values: Any, depth: int) -> list[Any]:
        return [self.encode(item, depth) for item in values]

    def content(self, value: Any, depth: int) -> list[Any]:
        """What a container holds now."""
        if isinstance(value, dict):
            return [[self.encode(key, depth), self.encode(item, depth)] for key, item in list(value.items())]
        if isinstance(value, bytearray):
            return [value.decode("latin-1")]
        return self.several(list(value), depth)

    def container(self, tag: str, value: Any, depth: int, *more: Any) -> list[Any]:
        number = self._numbers.get(id(value))
        if number is not None:
            return ["r", number]
        number = self._numbers[id(value)] = len(self.containers)
        self.containers.append(value)
        return [tag, number, self.content(value, depth), *more]


class Decoder:
    """One message on its way in. Containers that were sent before are found by number and keep their identity."""

    def __init__(self, hooks: Hooks, known: Sequence[Any] = ()) -> None:
        self.hooks = hooks
        self.containers = list(known)

    def decode(self, item: Any, depth: int = 0) -> Any:
        if not isinstance(item, list):
            if isinstance(item, dict):
                raise WireError("an object where none belongs")
            return item
        if depth > DEEPEST + 10 or not item or not isinstance(item[0], str):
            raise WireError("nested too deeply, or without a tag")
        tag, body = item[0], item[1:]
        try:
            if tag in CONTAINERS:
                return self._container(tag, body, depth + 1)
            read = READERS.get(tag)
            if read is not None:
                return read(self, body, depth + 1)
            return self.hooks.decode_other(tag, body, self, depth + 1)
        except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
            raise WireError(f"not a value: {type(error).__name__}: {error}"[:200]) from error

    def several(self, items: Any, depth: int) -> list[Any]:
        if not isinstance(items, list):
            raise WireError("no list where one belongs")
        return [self.decode(item, depth) for item in items]

    def fill(self, target: Any, content: Any, depth: int) -> None:
        """Replace what a container holds."""
        if isinstance(target, bytearray):
            target[:] = content[0].encode("latin-1")
        elif isinstance(target, dict):
            pairs = [(self.decode(key, depth), self.decode(value, depth)) for key, value in content]
            target.clear()
            for key, value in pairs:
                target[key] = value
        else:
            values = self.several(content, depth)
            target.clear()
            target.update(values) if isinstance(target, set) else target.extend(values)

    def _container(self, tag: str, body: list[Any], depth: int) -> Any:
        number, content, *more = body
        if number != len(self.containers):
            raise WireError("containers out of order")
        if tag == "q":
            target = deque[Any](maxlen=_length(more[0]))
        elif tag == "dd":
            target = defaultdict[Any, Any](self.decode(more[0], depth))
        else:
            target = CONTAINERS[tag]()
        self.containers.append(target)
        self.fill(target, content, depth)
        return target


def snapshot(container: Any) -> Any:
    """What to compare with after a call, to see whether the container was changed."""
    return dict(container) if isinstance(container, dict) else list(container)


def unchanged(container: Any, before: Any) -> bool:
    """True if it holds the very same objects in the same order."""
    if len(container) != len(before):
        return False
    if isinstance(before, dict):
        pairs = zip(container.items(), before.items(), strict=True)
        return all(key is old and value is kept for (key, value), (old, kept) in pairs)
    return all(item is old for item, old in zip(container, before, strict=True))


def _large(value: int) -> list[Any]:
    if value.bit_length() > LARGEST_BITS:
        raise WireError(f"an integer of more than {LARGEST_BITS} bits")
    return ["i", hex(value)]


def _integer(item: Any) -> int:
    if not isinstance(item, str) or len(item) > LARGEST_BITS // 4 + 8:
        raise WireError("no such integer")
    return int(item, 16)


def _length(item: Any) -> int | None:
    return None if item is None else max(0, min(int(item), sys.maxsize))


def _shift(moment: datetime | time) -> Any:
    offset = moment.utcoffset()
    return None if offset is None else offset.total_seconds()


def _zone(seconds: Any) -> timezone | None:
    return None if seconds is None else timezone(timedelta(seconds=seconds))


def _moment(value: datetime) -> list[Any]:
    clock = [value.hour, value.minute, value.second, value.microsecond]
    return ["dt", value.year, value.month, value.day, *clock, _shift(value), value.fold]


Write = Callable[[Encoder, Any, int], Any]
Read = Callable[[Decoder, list[Any], int], Any]
VIEWS = (type({}.keys()), type({}.values()), type({}.items()))

CONTAINERS: dict[str, Callable[[], Any]] = {
    "l": list, "d": dict, "s": set, "ba": bytearray, "c": Counter, "o": OrderedDict, "q": deque,
    "dd": defaultdict,
}  # fmt: skip
WRITERS: dict[type, Write] = {
    list: lambda to, value, depth: to.container("l", value, depth),
    dict: lambda to, value, depth: to.container("d", value, depth),
    set: lambda to, value, depth: to.container("s", value, depth),
    bytearray: lambda to, value, depth: to.container("ba", value, depth),
    Counter: lambda to, value, depth: to.container("c", value, depth),
    OrderedDict: lambda to, value, depth: to.container("o", value, depth),
    defaultdict: lambda to, value, depth: to.container("dd", value, depth, to.encode(value.default_factory, depth)),
    deque: lambda to, value, depth: to.container("q", value, depth, value.maxlen),
    tuple: lambda to, value, depth: ["t", to.several(value, depth)],
    frozenset: lambda to, value, depth: ["f", to.several(value, depth)],
    bytes: lambda _, value, __: ["b", value.decode("latin-1")],
    complex: lambda _, value, __: ["z", value.real, value.imag],
    Fraction: lambda to, value, depth: ["fr", to.encode(value.numerator, depth), to.encode(value.denominator, depth)],
    Decimal: lambda _, value, __: ["de", str(value)],
    datetime: lambda _, value, __: _moment(value),
    date: lambda _, value, __: ["da", value.year, value.month, value.day],
    time: lambda _, value, __: ["ti", value.hour, value.minute, value.second, value.microsecond, _shift(value)],
    timedelta: lambda _, value, __: ["td", value.days, value.seconds, value.microseconds],
    range: lambda to, value, depth: ["ra", *to.several((value.start, value.stop, value.step), depth)],
    slice: lambda to, value, depth: ["sl", *to.several((value.start, value.stop, value.step), depth)],
    type(...): lambda *_: ["el"],
    type(NotImplemented): lambda *_: ["ni"],
    VIEWS[0]: lambda to, value, depth: ["vk", to.several(value, depth)],
    VIEWS[1]: lambda to, value, depth: ["vv", to.several(value, depth)],
    VIEWS[2]: lambda to, value, depth: ["vi", to.several(value, depth)],
}
READERS: dict[str, Read] = {
    "r": lambda of, body, _: of.containers[_place(body[0])],
    "i": lambda _, body, __: _integer(body[0]),
    "t": lambda of, body, depth: tuple(of.several(body[0], depth)),
    "f": lambda of, body, depth: frozenset(of.several(body[0], depth)),
    "b": lambda _, body, __: body[0].encode("latin-1"),
    "z": lambda _, body, __: complex(float(body[0]), float(body[1])),
    "fr": lambda of, body, depth: Fraction(of.decode(body[0], depth), of.decode(body[1], depth)),
    "de": lambda _, body, __: Decimal(body[0]),
    "dt": lambda _, body, __: datetime(*body[:7], tzinfo=_zone(body[7]), fold=body[8]),
    "da": lambda _, body, __: date(*body),
    "ti": lambda _, body, __: time(*body[:4], tzinfo=_zone(body[4])),
    "td": lambda _, body, __: timedelta(*body),
    "ra": lambda of, body, depth: range(*of.several(body, depth)),
    "sl": lambda of, body, depth: slice(*of.several(body, depth)),
    "el": lambda *_: ...,
    "ni": lambda *_: NotImplemented,
    "vk": lambda of, body, depth: dict.fromkeys(of.several(body[0], depth)).keys(),
    "vv": lambda of, body, depth: dict(enumerate(of.several(body[0], depth))).values(),
    "vi": lambda of, body, depth: dict(of.several(body[0], depth)).items(),
}


def _place(item: Any) -> int:
    if type(item) is not int or item < 0:
        raise WireError("no such container")
    return item
