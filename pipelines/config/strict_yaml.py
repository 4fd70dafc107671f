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
NO_TEXT = re.compile("[\0\ud800-\udfff]")
ZERO = re.compile(r"[-+]?[0.]+([eE].*)?")
LEADING_ZERO = re.compile(r"[-+]?0[0-9]+")
FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
MAX_DIGITS = 100
LARGEST = 2**63 - 1
"""Of a whole number: what counts, sizes and seeds are stored in."""

QUOTE = "quote texts that contain ': ', ' #', or start with one of @ ` % & * ! | > [ {"
SYNTAX = {
    "undefined alias": "write &NAME before the value that *NAME stands for, or quote a text that starts with *",
    "duplicate anchor": "give each anchor a name of its own",
    "did not find expected key": "is every key of a section indented alike, and every bracket and quote closed once?",
    "did not find expected ',' or": "is a comma or a closing bracket missing?",
    "unexpected end of stream": "is a closing quote missing?",
    "mapping values are not allowed": "quote texts that contain ': ', and indent every key of a section alike",
    "incompatible YAML": "leave the directive out",
}
"""What to do about what PyYAML says."""

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

    foreign = yaml.reader.Reader.NON_PRINTABLE.search(text)
    if foreign:
        raise ConfigError(
            f"{where(text.count(chr(10), 0, foreign.start()) + 1)}: "
            f"a character that YAML does not allow ({ord(foreign.group()):#06x})",
            hint=_foreign_hint(foreign.group()),
        )
    try:
        _check_events(text, where)
        node = yaml.compose(text, Loader=LOADER)
    except yaml.MarkedYAMLError as error:
        _refuse_syntax(error, text, where)
    if node is None:
        raise ConfigError(
            f"{where(1)}: empty, there is no value in it", hint="write a value, or use `grpo init-config` for a file"
        )
    builder = _Builder(locate)
    return Document(builder.build(node, prefix), builder.origins)


def _foreign_hint(char: str) -> str:
    if char == "\0":
        return "is the file UTF-16, or binary? save it as UTF-8"
    if "\ud800" <= char <= "\udfff":
        return "it is not text in UTF-8; write it in UTF-8"
    return "remove it, or write it as an escape in double quotes"


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
    lines = text.splitlines()
    mark = error.problem_mark or error.context_mark
    if mark and mark.line >= len(lines) and error.context_mark:
        mark = error.context_mark  # what has no end is told where it begins
    line = mark.line + 1 if mark else 1
    written = lines[line - 1] if line <= len(lines) else ""
    problem = ", ".join(part for part in (error.context, error.problem) if part)
    hint = next((hint for words, hint in SYNTAX.items() if words in problem), QUOTE)
    if "\ufeff" in written:
        problem, hint = "a byte order mark inside the file", "files were joined: remove the mark between them"
    elif "\t" in written[: len(written) - len(written.lstrip())]:
        problem, hint = "indented with a tab", "indent with spaces"
    elif "another document" in problem:
        problem, hint = "a second document starts here", "keep one document a file, and give --config twice"
    elif "<document start>" in problem:
        problem, hint = "something follows the end of the document", "remove it, or look for a bracket too many"
    elif "character escape" in problem:
        hint = "write the character itself; halves of a surrogate pair are none"
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
            hint = "a configuration has a few hundred; use fewer aliases"
            self.refuse(node, path, f"more than {MAX_VALUES} values after aliases are expanded", hint)
        if len(path) > MAX_DEPTH:
            self.refuse(node, path[:1], f"nested deeper than {MAX_DEPTH} levels", "use fewer aliases")
        if id(node) in self.open_nodes:
            self.refuse(node, path, "an alias stands inside its own anchor", "write the value out")
        self.origins.setdefault(path, self.locate(node.start_mark.line + 1))
        if isinstance(node, yaml.ScalarNode):
            return self.text(node, path) if node.style else self.scalar(node, path)
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

    def text(self, node: yaml.ScalarNode, path: Path) -> str:
        """What stands in quotes, or in a block. Escapes can write what no path, tag or file can hold."""
        if NO_TEXT.search(node.value):
            self.refuse(node, path, "the text holds a NUL, or half a character", "remove the escape that writes it")
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
        whole = bool(INTEGER.fullmatch(text) or PREFIXED.fullmatch(text))
        if not whole and not FLOAT.fullmatch(text):
            return text
        if len(text) > MAX_DIGITS:
            self.refuse(node, path, f"a number of {len(text)} characters", "quote it if it is meant as text")
        return self.whole(node, path) if whole else self.fraction(node, path)

    def whole(self, node: yaml.ScalarNode, path: Path) -> int:
        value = int(node.value, 0)
        if abs(value) > LARGEST:
            self.refuse(node, path, f"{node.value} is too large for a whole number", f"the largest is {LARGEST}")
        return value

    def fraction(self, node: yaml.ScalarNode, path: Path) -> float:
        value = float(node.value)
        if math.isinf(value):
            self.refuse(node, path, f"{node.value} is too large for a number", "infinities are not allowed")
        if value == 0 and not ZERO.fullmatch(node.value):
            self.refuse(node, path, f"{node.value} is too small for a number", "write 0 if it is meant as nothing")
        return value

    def refuse(self, node: yaml.Node, path: Path, message: str, hint: str) -> NoReturn:
        place = self.locate(node.start_mark.line + 1)
        raise ConfigError(f"{place}: {dotted(path)}: {message}" if path else f"{place}: {message}", hint=hint)
