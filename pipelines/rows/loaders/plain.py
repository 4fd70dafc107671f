"""Records that were never JSON: tables and plugins hold more kinds of values than a row can."""

import math
from collections.abc import Mapping
from typing import Any, cast

from pipelines.rows.records import MAX_DEPTH, BadRowError

HINT = "a row holds texts, numbers, booleans, lists and objects, as JSON does"


def plain(record: object) -> dict[str, Any]:
    """The record as JSON data; BadRowError names the field that is none. Arrays become lists.

    Fields of inner objects that are None are left out: a table gives every object the fields of all the others.
    """
    if not isinstance(record, Mapping):
        raise BadRowError(f"not an object but a {type(record).__name__}", hint="a record maps fields to values")
    fields = cast("Mapping[object, object]", record)
    return {_name(name): _plain(value, str(name), 1) for name, value in fields.items()}


def _plain(value: object, where: str, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise BadRowError(f"{where} is nested too deeply", hint="keep what is nested small")
    if hasattr(value, "tolist"):
        value = cast("Any", value).tolist()
    if isinstance(value, str):
        return _text(value, where)
    if isinstance(value, (list, tuple)):
        items = cast("list[object]", value)
        return [_plain(item, f"{where}[{i}]", depth + 1) for i, item in enumerate(items)]
    if isinstance(value, Mapping):
        inner = cast("Mapping[object, object]", value)
        return {
            _name(name): _plain(item, f"{where}.{name}", depth + 1) for name, item in inner.items() if item is not None
        }
    if value is None or isinstance(value, (bool, int)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    what = repr(value) if isinstance(value, float) else f"of the type {type(value).__name__}"
    raise BadRowError(f"{where} is {what}", hint=HINT)


def _text(value: str, where: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise BadRowError(
            f"{where} holds half of a surrogate pair", hint="the text was cut inside a character"
        ) from error
    return value


def _name(value: object) -> str:
    if not isinstance(value, str):
        raise BadRowError(f"the field {value!r} is no text", hint=HINT)
    return _text(value, "the name of a field")
