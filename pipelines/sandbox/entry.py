"""Which function of a solution is meant by a test that names none."""

import dis
import types
from collections.abc import Iterator, Mapping
from typing import Any

READS = frozenset({"LOAD_GLOBAL", "LOAD_NAME", "LOAD_ATTR", "LOAD_METHOD"})


def entry(names: Mapping[str, Any], module: str) -> str:
    """The last public function that the module defines, or `Solution().method`; empty if there is none.

    `main`, tests, and what the others use are passed over as long as anything else is left.
    """
    own = {name: value for name, value in names.items() if getattr(value, "__module__", None) == module}
    chosen = _last(own)
    if chosen == "Solution" and isinstance(own[chosen], type):
        return f"Solution().{method}" if (method := _last(vars(own[chosen]))) else chosen
    return chosen


def _last(found: Mapping[str, Any]) -> str:
    public = [name for name, value in found.items() if callable(value) and not name.startswith("_")]
    telling = [name for name in public if name != "main" and not name.lower().startswith("test")]
    used = {name: set(_read_by(found[name])) for name in telling}
    alone = [name for name in telling if not any(name in used[other] for other in telling if other != name)]
    return next(reversed(alone or telling or public), "")


def _read_by(value: Any) -> Iterator[str]:
    """Names that a function, or the methods of a class, read."""
    if isinstance(value, type):
        for member in list(vars(value).values()):
            if isinstance(member, types.FunctionType):
                yield from _read_by(member)
    pending = [getattr(getattr(value, "__wrapped__", value), "__code__", None)]
    while pending:
        code = pending.pop()
        if isinstance(code, types.CodeType):
            pending += code.co_consts
            yield from (str(step.argval) for step in dis.get_instructions(code) if step.opname in READS)
