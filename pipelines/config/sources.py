"""Where values come from: one pydantic-settings source a kind, each of which remembers the place of every value."""

import codecs
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from pipelines.config import fields
from pipelines.config.experiment import ExperimentConfig
from pipelines.config.strict_yaml import Document, parse
from pipelines.errors import ConfigError

PREFIX = "GRPO_"
RESERVED: frozenset[str] = frozenset()
"""Variables that start with GRPO_ and are not configuration."""


MAX_BYTES = 1 << 20
"""Of a file; a configuration has a few thousand."""


class Layers(BaseSettings):
    """Raw values by key, merged by pydantic-settings; `ExperimentConfig` then validates what came out."""

    model_config = SettingsConfigDict(extra="allow")


class TracedSource(PydanticBaseSettingsSource):
    """A source that was read at once: a tree of values, and the place of each."""

    def __init__(self, document: Document) -> None:
        super().__init__(Layers)
        self.document = document

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002
        """The value of one top-level key."""
        return self.document.value.get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        """The tree itself."""
        return self.document.value


class FileSource(TracedSource):
    """A YAML file."""

    def __init__(self, path: Path) -> None:
        document = parse(_read(path), lambda line: f"{path}:{line}")
        if not isinstance(document.value, dict):
            raise ConfigError(
                f"{path}:1: a configuration file holds keys and values", hint="such as `trainer: {seed: 1}`"
            )
        super().__init__(document)


class EnvironmentSource(TracedSource):
    """One variable: `GRPO_TRAINER__LOSS__TYPE=dapo` sets trainer.loss.type."""

    def __init__(self, name: str, text: str) -> None:
        path = variable_path(name)
        if fields.inside_list(ExperimentConfig, path):
            raise ConfigError(
                f"environment {name}: an item of a list cannot be set alone",
                hint=f"set the whole list: {variable_name(path[:1])}='[...]'",
            )
        if fields.find(ExperimentConfig, path) is None:
            raise ConfigError(f"environment {name}: {fields.dotted(path)} is not a key", hint=_variable_hint(path))
        super().__init__(_nested(path, text, f"environment {name}"))


class OverrideSource(TracedSource):
    """One `--set a.b=value`."""

    def __init__(self, assignment: str) -> None:
        key, equals, text = assignment.partition("=")
        path = tuple(part.strip() for part in key.split("."))
        if not equals or not all(path):
            raise ConfigError(
                f"--set {assignment}: not of the form key=value", hint="write --set trainer.learning_rate=1e-5"
            )
        if any(part.isdecimal() for part in path):
            top = fields.dotted(path[: [part.isdecimal() for part in path].index(True)])
            raise ConfigError(
                f"--set {key}: an item of a list cannot be set alone", hint=f"set the whole list: --set '{top}=[...]'"
            )
        super().__init__(_nested(path, text, "--set"))


def environment_sources(environ: Mapping[str, str]) -> Iterator[EnvironmentSource]:
    """Every GRPO_ variable, sections before the keys inside them, so that the more specific one wins."""
    names = [name for name in environ if name.startswith(PREFIX) and name not in RESERVED]
    for name in sorted(names, key=lambda name: (len(variable_path(name)), name)):
        yield EnvironmentSource(name, environ[name])


def merge(sources: Sequence[TracedSource]) -> Document:
    """Later sources win; mappings are merged key by key, lists and single values replaced."""

    class Merged(Layers):
        @classmethod
        def settings_customise_sources(cls, *_: Any, **__: Any) -> tuple[PydanticBaseSettingsSource, ...]:
            return tuple(reversed(sources))

    origins: dict[fields.Path, str] = {}
    for source in sources:
        origins.update(source.document.origins)
    return Document(dict(Merged().model_extra or {}), origins)


def variable_path(name: str) -> tuple[str, ...]:
    """`GRPO_TRAINER__SEED` -> `("trainer", "seed")`."""
    return tuple(name[len(PREFIX) :].lower().split("__"))


def variable_name(path: fields.Path) -> str:
    """`("trainer", "seed")` -> `GRPO_TRAINER__SEED`."""
    return PREFIX + "__".join(map(str, path)).upper()


def _variable_hint(path: tuple[str, ...]) -> str:
    meant = fields.guess(ExperimentConfig, path)
    if meant:
        return f"did you mean {variable_name(tuple(meant.split('.')))}?"
    return "GRPO_SECTION__KEY=value sets section.key; unset variables that are not meant for grpo"


def _nested(path: tuple[str, ...], text: str, place: str) -> Document:
    if not text.strip():
        raise ConfigError(f"{place}: {fields.dotted(path)} has no value", hint='write null, or "" for an empty text')
    document = parse(text, lambda _: place, path)
    written, value = text.strip(), document.value
    if isinstance(value, str) and value != written and written[0] not in "\"'|>":
        raise ConfigError(
            f"{place}: {fields.dotted(path)}: without quotes this is read as {value[:60]!r}",
            hint="quotes of its own keep a text whole, with '#' and line ends as \\n: '\"...\"'",
        )
    for part in reversed(path):
        value = {part: value}
    parents = {path[:depth]: place for depth in range(1, len(path))}
    return Document(value, {**parents, **document.origins})


def _read(path: Path) -> str:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            what = "a directory" if stat.S_ISDIR(status.st_mode) else "not a regular file but a pipe or a device"
            raise ConfigError(f"{path}: {what}", hint="give a YAML file, such as config.yaml")
        if status.st_size > MAX_BYTES:
            size = f"{status.st_size / (1 << 20):.1f} MiB"
            raise ConfigError(f"{path}: {size} are no configuration", hint=f"the most is {MAX_BYTES >> 20} MiB")
        if not status.st_size:
            return ""  # nothing is read of what the system makes up: it may wait, or have no end
        return _decoded(path, path.read_bytes())
    except FileNotFoundError as error:
        raise ConfigError(
            f"{path}: no such file", hint="`grpo init-config` writes a configuration to start from"
        ) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{path}: {reason}", hint="give a YAML file that can be read") from error


def _decoded(path: Path, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        wide = "UTF-16 or UTF-32" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else ""
        line = content.count(b"\n", 0, error.start) + 1
        found = wide or f"not UTF-8 text (byte {error.start})"
        raise ConfigError(f"{path}:{line}: {found}", hint="save the file as UTF-8") from error
