"""Exceptions on the wire: names of classes, plain arguments, and nothing else of the frames they came from."""

import builtins
import importlib
from typing import Any

from pipelines.sandbox import wire

QUITTING = (SystemExit, KeyboardInterrupt, GeneratorExit)
BUILT_IN = {
    name: kind
    for name, kind in vars(builtins).items()
    if isinstance(kind, type) and issubclass(kind, Exception) and not name.startswith("_")
}
LIBRARY = {
    "asyncio.exceptions": ("TimeoutError", "CancelledError", "InvalidStateError", "QueueEmpty", "QueueFull"),
    "binascii": ("Error",),
    "configparser": ("Error", "NoSectionError", "NoOptionError"),
    "dataclasses": ("FrozenInstanceError",),
    "decimal": ("DecimalException", "InvalidOperation", "DivisionByZero", "Overflow"),
    "json.decoder": ("JSONDecodeError",),
    "_queue": ("Empty",),
    "queue": ("Empty", "Full"),
    "re": ("error",),
    "re._constants": ("error",),
    "sre_constants": ("error",),
    "statistics": ("StatisticsError",),
    "string": (),
    "struct": ("error",),
}
"""Exceptions of the standard library that a test may name. Only these are looked up."""


def library(module: object, name: object) -> type[BaseException] | None:
    """A listed exception class by where it lives; None for everything else."""
    if not (isinstance(module, str) and isinstance(name, str) and name in LIBRARY.get(module, ())):
        return None
    try:
        return getattr(importlib.import_module(module), name, None)
    except ImportError:
        return None


def encode(error: BaseException, encoder: wire.Encoder, *, alone: bool = False) -> list[Any]:
    """`[quits, [[module, name, class], ...], arguments, attributes, text, cause]`; classes of no library are handles.

    The cause is another such list, without a cause of its own, or None.
    """
    classes: list[list[Any]] = []
    for kind in type(error).__mro__:
        if kind in (object, Exception, BaseException):
            continue
        known = BUILT_IN.get(kind.__name__) is kind or library(kind.__module__, kind.__name__) is kind
        classes.append([str(kind.__module__), str(kind.__name__), None if known else _attempt(kind, encoder)])
    arguments = [_attempt(item, encoder) for item in list(error.args)[:8]]
    attributes = [[name, _attempt(value, encoder)] for name, value in list(vars(error).items())[:16]]
    cause = error.__cause__ if isinstance(error.__cause__, Exception) and not alone else None
    told = encode(cause, encoder, alone=True) if cause else None
    return [isinstance(error, QUITTING), classes, arguments, attributes, _text(error), told]


def _attempt(value: Any, encoder: wire.Encoder) -> Any:
    """What cannot be sent is left out: an error must arrive whatever it carries."""
    try:
        return encoder.encode(value)
    except (wire.WireError, TypeError, ValueError, AttributeError, RecursionError):
        return None


def _text(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"[:300]
    except (TypeError, ValueError, AttributeError, RuntimeError):
        return type(error).__name__
