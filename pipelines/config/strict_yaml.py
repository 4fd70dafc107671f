"""YAML without surprises: PyYAML finds the structure, this file decides what a plain word means.

Plain scalars follow YAML 1.2's core schema, so `1e-5` is a number and `no`, `1:30` and `2024-01-01` are texts.
Whatever YAML 1.1 and 1.2 read as different numbers (`010`) is refused, as are duplicate keys, tags, NaN and
infinities, and aliases that expand without bound. Every value remembers where it was written.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn

import yaml

from pipelines.config.fields import Path, dotted
from pipelines.errors import ConfigError

LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
MAX_DEPTH = 40
MAX_VALUES = 10_000
"""Values of one document after aliases are expanded; a configuration has a few hundred."""

NULLS = frozenset(["", "~", "null", "Null", "NULL"])
BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)")
PREFIXED = re.compile(r"0x[0-9a-fA-F]+|0o[0-7]+")
LEADING_ZERO = re.compile(r"[-+]?0[0-9]+")
FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
MAX_DIGITS = 100

Locate = Callable[[int], str]
"""From a line, counted from 1, to the words that name the place, such as `config.yaml:12`."""


@dataclass(frozen=True)
class Document:
    """A parsed value, and the place where each value in it was written."""

    value: Any
    origins: dict[Path, str]


def parse(text: str, locate: Locate, prefix: Path = ()) -> Document:
    """The one value of a YAML text; `prefix` is the key it will be put under. Raises ConfigError with the place.

    A text without any value (empty, or only comments) is an error: null has to be written.
    """

    def where(line: int) -> str:
        return f"{locate(line)}: {dotted(prefix)}" if prefix else locate(line)

    try:
        _check_events(text, where)
        node = yaml.compose(text, Loader=LOADER)
    except yaml.MarkedYAMLError as error:
        _refuse_syntax(error, text, where)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(
            f"{where(line)}: a character that YAML does not allow ({ord(text[error.position]):#06x})",
            hint="remove it, or write it as an escape in double quotes",
        ) from error
    if node is None:
        raise ConfigError(
            f"{where(1)}: empty, there is no value in it", hint="write a value, or use `grpo init-config` for a file"
        )
    builder = _Builder(locate)
    return Document(builder.build(node, prefix), builder.origins)


def _check_events(text: str, where: Locate) -> None:
    """Refuse tags and deep nesting while nothing recursive has seen the text yet."""
    depth = 0
    events: Any = yaml.parse(text, Loader=LOADER)
    for event in events:
        line: int = event.start_mark.line + 1
        tag: str | None = getattr(event, "tag", None)
        if tag is not None:
            raise ConfigError(
                f"{where(line)}: tags such as {tag} are not allowed", hint="quote a text that starts with !"
            )
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise ConfigError(f"{where(line)}: nested deeper than {MAX_DEPTH} levels", hint="is a bracket missing?")


def _refuse_syntax(error: yaml.MarkedYAMLError, text: str, where: Locate) -> NoReturn:
    mark = error.problem_mark or error.context_mark
    line = mark.line + 1 if mark else 1
    lines = text.splitlines()
    written = lines[line - 1] if line <= len(lines) else ""
    problem = ", ".join(part for part in (error.context, error.problem) if part)
    hint = "quote texts that contain ': ', ' #', or start with one of @ ` % & * ! | > [ {"
    if "\t" in written[: len(written) - len(written.lstrip())]:
        problem, hint = "indented with a tab", "indent with spaces"
    elif "document" in problem:
        problem, hint = "a second document starts here", "keep one document a file, and give --config twice"
    raise ConfigError(f"{where(line)}: {problem}", hint=hint) from error


@dataclass
class _Builder:
    """Turns nodes into values; `open_nodes` are those being built, to notice an alias inside its own anchor."""

    locate: Locate
    origins: dict[Path, str] = field(default_factory=dict[Path, str])
    values: int = 0
    open_nodes: set[int] = field(default_factory=set[int])

    def build(self, node: yaml.Node, path: Path) -> Any:
        self.values += 1
        if self.values > MAX_VALUES:
            self.refuse(node, path, f"more than {MAX_VALUES} values after aliases are expanded", "use fewer aliases")
        if id(node) in self.open_nodes:
            self.refuse(node, path, "an alias stands inside its own anchor", "write the value out")
        self.origins.setdefault(path, self.locate(node.start_mark.line + 1))
        if isinstance(node, yaml.ScalarNode):
            return node.value if node.style else self.scalar(node, path)
        self.open_nodes.add(id(node))
        value = self.mapping(node, path) if isinstance(node, yaml.MappingNode) else self.sequence(node, path)
        self.open_nodes.discard(id(node))
        return value

    def sequence(self, node: yaml.Node, path: Path) -> list[Any]:
        return [self.build(item, (*path, index)) for index, item in enumerate(node.value)]

    def mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        """Keys written here win over those merged in by `<<`; a key written twice is refused."""
        merged: dict[str, Any] = {}
        written: dict[str, int] = {}
        for key_node, value_node in node.value:
            key = self.key(key_node, path)
            line = key_node.start_mark.line + 1
            if key in written:
                message = f"written twice, first in line {written[key]}"
                self.refuse(key_node, (*path, key), message, "keep one of the two")
            written[key] = line
            if key == "<<" and not key_node.style:
                merged = self.merged(value_node, path)
        values = merged
        for key_node, value_node in node.value:
            if key_node.value == "<<" and not key_node.style:
                continue
            child = (*path, key_node.value)
            self.origins[child] = self.locate(key_node.start_mark.line + 1)
            values[key_node.value] = self.build(value_node, child)
        return values

    def merged(self, node: yaml.Node, path: Path) -> dict[str, Any]:
        """The mapping, or mappings of which earlier ones win, that `<<` brings in."""
        sources = node.value if isinstance(node, yaml.SequenceNode) else [node]
        values: dict[str, Any] = {}
        for source in reversed(sources):
            if not isinstance(source, yaml.MappingNode):
                self.refuse(node, (*path, "<<"), "only mappings can be merged in", "write <<: *anchor of a mapping")
            values.update(self.build(source, path))
        return values

    def key(self, node: yaml.Node, path: Path) -> str:
        if not isinstance(node, yaml.ScalarNode) or (not node.style and not isinstance(self.scalar(node, path), str)):
            self.refuse(node, path, "a key has to be a word", "quote the key if it is meant as text")
        return node.value

    def scalar(self, node: yaml.ScalarNode, path: Path) -> Any:
        """What a plain scalar means in YAML 1.2's core schema."""
        text: str = node.value
        if text in NULLS:
            return None
        if text in BOOLEANS:
            return BOOLEANS[text]
        if LEADING_ZERO.fullmatch(text):
            self.refuse(node, path, f"{text} is octal to some and decimal to others", "drop the zero, or quote a text")
        if NOT_FINITE.fullmatch(text):
            self.refuse(node, path, f"{text} is not a finite number", "NaN and infinities are not allowed")
        if len(text) > MAX_DIGITS and FLOAT.fullmatch(text):
            self.refuse(node, path, f"a number of {len(text)} characters", "quote it if it is meant as text")
        if PREFIXED.fullmatch(text):
            return int(text, 0)
        if INTEGER.fullmatch(text):
            return int(text)
        if not FLOAT.fullmatch(text):
            return text
        if math.isinf(float(text)):
            self.refuse(node, path, f"{text} is too large for a number", "infinities are not allowed")
        return float(text)

    def refuse(self, node: yaml.Node, path: Path, message: str, hint: str) -> NoReturn:
        place = self.locate(node.start_mark.line + 1)
        raise ConfigError(f"{place}: {dotted(path)}: {message}" if path else f"{place}: {message}", hint=hint)
