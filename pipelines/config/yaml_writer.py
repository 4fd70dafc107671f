"""Values as YAML which every YAML reader takes for the same value: one on a line, or a whole commented file."""

import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import yaml

from pipelines.config.fields import Key, Path, keys_of
from pipelines.config.section import Section
from pipelines.config.strict_yaml import parse
from pipelines.errors import ConfigError

Remark = Callable[[Path], str]
"""From the place of a key to what a comment says about it."""

WIDTH = 120
PLAIN = re.compile(r"[\w<./~][\w<>./:~@+-]*")


def as_yaml(value: object) -> str:
    """A value on one line, written so that YAML 1.1 and 1.2 read the same."""
    if isinstance(value, dict):
        pairs = cast("dict[str, object]", value).items()
        return "{" + ", ".join(f"{as_yaml(key)}: {as_yaml(item)}" for key, item in pairs) + "}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(as_yaml, cast('Sequence[object]', value)))}]"
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, float):
        mantissa, exponent, power = repr(value).partition("e")
        return mantissa + (".0" if exponent and "." not in mantissa else "") + exponent + power
    return "null" if value is None else str(value).lower()


def nothing(_: Path) -> str:
    """No remark at all."""
    return ""


def document_lines(
    values: Mapping[str, Any], section: type[Section], remark: Remark, heading: Remark = nothing, path: Path = ()
) -> Iterator[str]:
    """The lines of a file that holds these values of a section: behind each key a remark, or above it if that is long.

    `heading` gives lines above a key, if any. Keys of the root stand apart.
    """
    width = WIDTH - 2 * len(path)
    for key in (key for name, key in keys_of(section).items() if name in values):
        name = key.path[-1]
        inner = (*path, name)
        below = _below(values[name], key, inner, remark, heading)
        if not path:
            yield ""
        yield from (f"# {line}" for line in heading(inner).splitlines())
        line, comment = f"{name}:{'' if below else ' ' + as_yaml(values[name])}", remark(inner)
        if not comment:
            yield line
        elif len(f"{line}  # {comment}") <= width:
            yield f"{line}  # {comment}"
        else:
            yield from (*(f"# {part}" for part in textwrap.wrap(comment, width - 2)), line)
        yield from (f"  {line}" for line in below)


def _below(value: Any, key: Key, path: Path, remark: Remark, heading: Remark) -> list[str]:
    """The lines below a section or a list of sections; none for what stands on the line of its key."""
    if key.nested is None or not value:
        return []
    if not key.many:
        return list(document_lines(value, key.nested, remark, heading, path))
    lines: list[str] = []
    for index, item in enumerate(value):
        first, *others = document_lines(item, key.nested, remark, heading, (*path, index))
        lines += [f"- {first}", *(f"  {line}" for line in others)]
    return lines


def _text(value: str) -> str:
    """Without quotes where every reader takes it for this text, even inside brackets."""
    if PLAIN.fullmatch(value) and not value.endswith(":") and yaml.safe_load(f"[{value}]") == [value]:
        try:
            plain = parse(f"[{value}]", str).value == [value]
        except ConfigError:
            plain = False
        if plain:
            return value
    return yaml.safe_dump(value, default_style='"', allow_unicode=True, width=10**9).strip()
