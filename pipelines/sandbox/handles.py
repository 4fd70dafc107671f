"""Stand-ins for objects that live on the other side of the wire.

A stand-in's class has just the special methods that the object's class has, so that `len(x)` fails where it should.
The judge decides all comparisons with plain data: a stand-in never equals a plain value, and an operator whose other
operand is plain is passed on only for objects that the test itself made from a class it names (`trusted`). Otherwise
an object that swallows subtraction, or is smaller than everything, would see the expected value and pass for it.
"""

import dataclasses
import types
from collections.abc import Callable, Iterator
from typing import Any, cast

from pipelines.sandbox.peer import Peer

UNARY = (
    "__len__", "__iter__", "__next__", "__bool__", "__str__", "__repr__", "__hash__", "__int__", "__float__",
    "__complex__", "__index__", "__abs__", "__neg__", "__pos__", "__invert__", "__trunc__", "__floor__", "__ceil__",
    "__reversed__", "__enter__",
)  # fmt: skip
WITH_ARGUMENTS = ("__getitem__", "__setitem__", "__delitem__", "__exit__", "__format__", "__round__")
ASYNCHRONOUS = ("__aenter__", "__aexit__", "__anext__")
OPERATORS = (
    "add",
    "sub",
    "mul",
    "truediv",
    "floordiv",
    "mod",
    "divmod",
    "pow",
    "matmul",
    "and",
    "or",
    "xor",
    "lshift",
    "rshift",
)
BINARY = tuple(f"__{kind}{word}__" for word in OPERATORS for kind in ("", "r", "i"))
ORDER = ("__lt__", "__le__", "__gt__", "__ge__")
SPECIAL = (
    *UNARY, *WITH_ARGUMENTS, *ASYNCHRONOUS, *BINARY, *ORDER,
    "__eq__", "__ne__", "__contains__", "__call__", "__await__", "__aiter__",
)  # fmt: skip
PREDICATES = frozenset(
    name
    for kind in (str, bytes, set, float, range, dict)
    for name in dir(kind)
    if name.startswith(("is", "starts", "ends"))
)
"""Methods of plain data that answer yes or no: a stand-in must not answer in its place."""


class Link:
    """Where a stand-in leads to.

    The object is `trusted` if it came only when the test asked for it: by the name of its class, by calling that class,
    or by an operator on a trusted one. What a method or an attribute gives is a result, whatever it was before.
    """

    __slots__ = ("asked", "base", "came", "is_class", "makes", "name", "number", "peer", "strict")

    def __init__(self, peer: Peer, number: int, name: str, base: str, *, is_class: bool, strict: bool) -> None:
        self.peer, self.number, self.name, self.base = peer, number, name, base
        self.is_class, self.strict = is_class, strict
        self.came, self.asked, self.makes = 1, 0, False

    @property
    def trusted(self) -> bool:
        return self.asked == self.came

    @property
    def takes_plain(self) -> bool:
        """Whether an operator may hand it a plain operand."""
        return not self.strict or (self.trusted and not self.is_class)


class Handle:
    """An object of the other side. Equal to itself only, unless its class says otherwise about another stand-in."""

    __slots__ = ("__weakref__", "_link_")

    def __init__(self, link: Link) -> None:
        object.__setattr__(self, "_link_", link)

    def __getattr__(self, name: str) -> Any:
        link = self._link_
        if link.strict and not link.trusted and name in PREDICATES:
            raise AttributeError(f"{link.name!r} object is no plain data: {name!r} is not asked of it")
        return link.peer.ask("get", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._link_.peer.ask("set", self, name, value)

    def __delattr__(self, name: str) -> None:
        self._link_.peer.ask("del", self, name)

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return hash((Handle, self._link_.number))

    def __copy__(self) -> Any:
        return self._link_.peer.ask("copy", self)

    def __deepcopy__(self, memo: Any) -> Any:
        return self._link_.peer.ask("deepcopy", self)

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError("an object of the solution stays where it is")


class ClassHandle(Handle):
    """A class of the other side: to be called, asked for attributes, and used in `isinstance`."""

    __slots__ = ()

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        made = self._link_.peer.ask("call", self, arguments, keywords)
        if self._link_.trusted and self._link_.makes:
            _asked_for(made)
        return made

    def __getitem__(self, _: Any) -> Any:
        """A generic class stands for all its kinds: `Stack[int]` is `Stack`."""
        if not hasattr(self, "__class_getitem__"):
            raise TypeError(f"type {self._link_.name!r} is not subscriptable")
        return self

    def __instancecheck__(self, item: Any) -> bool:
        home = getattr(type(item), "_class_", None)
        if home is not None:
            item = item._whole_ if hasattr(type(item), "_whole_") else item
            return home is self or (not isinstance(item, Handle) and bool(self._link_.peer.ask("subclass", home, self)))
        return isinstance(item, Handle) and bool(self._link_.peer.ask("isinstance", item, self))

    def __subclasscheck__(self, kind: Any) -> bool:
        return isinstance(kind, ClassHandle) and bool(self._link_.peer.ask("subclass", kind, self))


def handle_class(name: str, special: list[str], fields: list[str], *, is_class: bool, base: str) -> type[Handle]:
    """The class of stand-ins for one class of the other side."""
    members: dict[str, Any] = {"__slots__": (), "__doc__": property(_documentation)}
    for word in special:
        if word in FORWARDS and not (is_class and word in ("__call__", "__eq__", "__hash__")):
            members[word] = FORWARDS[word]
    if base and not is_class:
        members.pop("__ne__", None)
        members |= {"__eq__": _equal_snapshot, "__contains__": _contains_snapshot}
        members |= {
            word: _on_snapshot(word) for word in special if word in BINARY + ORDER and not word.startswith("__i")
        }
    if fields:  # for `dataclasses.asdict` and its like
        made = dataclasses.make_dataclass("Fields", map(str, fields))
        members["__dataclass_fields__"] = vars(made)["__dataclass_fields__"]
    if "__eq__" in members and "__hash__" not in members:
        members["__hash__"] = None
    clean = name if name.isidentifier() else "Unnamed"
    return cast("type[Handle]", type(clean, (ClassHandle if is_class else Handle,), members))


def whole_class(name: str, base: type, special: list[str], home: Any) -> type:
    """For a number, text or tuple whose class the solution derived: plain data here, with the attributes from there."""
    members: dict[str, Any] = {"_class_": home, "_whole_": None, "__getattr__": _attribute_of_whole}
    for word in special:
        if word in ("__str__", "__repr__", "__format__"):
            members[word] = _forward_whole(word)
    return type(name if name.isidentifier() else "Unnamed", (base,), members)


def _attribute_of_whole(self: Any, name: str) -> Any:
    return getattr(self._whole_, name)


def _forward_whole(word: str) -> Callable[..., Any]:
    def forward(self: Any, *arguments: Any) -> Any:
        return self._whole_._link_.peer.ask("special", self._whole_, word, *arguments)

    return forward


def plain(handle: Handle) -> Any:
    """The content of a list, dict or set whose class the solution derived, without the methods it changed."""
    return handle._link_.peer.ask("plain", handle)


def _documentation(self: Handle) -> Any:
    return self._link_.peer.ask("get", self, "__doc__")


def _forward(word: str) -> Callable[..., Any]:
    def forward(self: Handle, *arguments: Any) -> Any:
        return self._link_.peer.ask("special", self, word, *arguments)

    return forward


def _forward_exit(self: Handle, *arguments: Any) -> Any:
    told = self._link_.peer.ask("special", self, "__exit__", *_without_trace(arguments))
    return _swallowed(self, arguments, told)


async def _forward_late_exit(self: Handle, *arguments: Any) -> Any:
    told = self._link_.peer.ask("await special", self, "__aexit__", *_without_trace(arguments))
    return _swallowed(self, arguments, told)


def _swallowed(self: Handle, arguments: tuple[Any, ...], told: Any) -> Any:
    """What `__exit__` said, unless the test needs the error: else an object could swallow a failed assert."""
    error = arguments[1] if len(arguments) > 1 else None
    needed = isinstance(error, BaseException) and self._link_.peer.side.needs(error)
    return False if needed else told


def _without_trace(arguments: tuple[Any, ...]) -> list[Any]:
    """What `__exit__` is told, less the traceback: there is no such frame over there."""
    return [None if isinstance(item, types.TracebackType) else item for item in arguments]


def _forward_operator(word: str) -> Callable[..., Any]:
    """Passed on if both operands live over there; refused for a plain one unless the test made the object."""

    def forward(self: Handle, *arguments: Any) -> Any:
        link = self._link_
        known = all(isinstance(item, Handle) or hasattr(type(item), "_whole_") for item in arguments)
        if not known and not link.takes_plain:
            return NotImplemented
        trusted = link.trusted
        result = link.peer.ask("special", self, word, *arguments)
        if trusted:
            _asked_for(result)
        return result

    return forward


def _asked_for(made: Any) -> None:
    if isinstance(made, Handle) and not made._link_.is_class:
        made._link_.asked += 1


def _forward_equality(word: str) -> Callable[..., Any]:
    def forward(self: Handle, other: Any) -> Any:
        if self is other and word == "__eq__":
            return True
        if self._link_.strict and not isinstance(other, Handle):
            return word == "__ne__"
        return self._link_.peer.ask("special", self, word, other)

    return forward


def _forward_coroutine(word: str) -> Callable[..., Any]:
    async def forward(self: Handle, *arguments: Any) -> Any:
        return self._link_.peer.ask("await special", self, word, *arguments)

    return forward


def _call(self: Handle, *arguments: Any, **keywords: Any) -> Any:
    return self._link_.peer.ask("call", self, arguments, keywords)


def _contains(self: Handle, item: Any) -> bool:
    """Plain items are looked for here, one by one; the object is not asked whether it has them."""
    link = self._link_
    if link.takes_plain or isinstance(item, Handle):
        return bool(link.peer.ask("special", self, "__contains__", item))
    return any(item is found or item == found for found in iter(self))  # pyright: ignore[reportArgumentType, reportCallIssue]


def _await(self: Handle) -> Iterator[Any]:
    return self._link_.peer.ask("await", self)
    yield


def _itself(self: Handle) -> Handle:
    return self


def _equal_snapshot(self: Handle, other: Any) -> bool:
    return self is other or bool(plain(self) == (plain(other) if isinstance(other, Handle) else other))


def _contains_snapshot(self: Handle, item: Any) -> bool:
    return item in plain(self)


def _on_snapshot(word: str) -> Callable[..., Any]:
    def forward(self: Handle, *arguments: Any) -> Any:
        others = [plain(item) if isinstance(item, Handle) and item._link_.base else item for item in arguments]
        if any(isinstance(item, Handle) for item in others):
            return self._link_.peer.ask("special", self, word, *others)
        content = plain(self)
        method = getattr(type(content), word, None)
        return NotImplemented if method is None else method(content, *others)

    return forward


FORWARDS: dict[str, Any] = {
    **{word: _forward(word) for word in (*UNARY, *WITH_ARGUMENTS)},
    **{word: _forward_coroutine(word) for word in ASYNCHRONOUS},
    **{word: _forward_operator(word) for word in (*BINARY, *ORDER)},
    **{word: _forward_equality(word) for word in ("__eq__", "__ne__")},
    "__exit__": _forward_exit,
    "__aexit__": _forward_late_exit,
    "__call__": _call,
    "__contains__": _contains,
    "__await__": _await,
    "__aiter__": _itself,
}
