"""Values as YAML on one line, which every YAML reader takes for the same value."""

import re
from collections.abc import Sequence
from typing import cast

import yaml

from pipelines.config.strict_yaml import parse
from pipelines.errors import ConfigError

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
