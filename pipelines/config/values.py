"""A configuration as a list of values: where each came from, which were changed, how two configurations differ."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from pipelines.config.experiment import ExperimentConfig
from pipelines.config.fields import Path, dotted, find, suggest
from pipelines.config.problems import path_of
from pipelines.config.yaml_writer import as_yaml
from pipelines.errors import ConfigError

ABSENT = object()
"""Stands for a value that is not there, which null is not."""


@dataclass(frozen=True)
class Setting:
    """One value with its place and origin; `changed` says that the defaults have another there, or none."""

    path: Path
    value: Any
    origin: str
    changed: bool

    @property
    def key(self) -> str:
        """The dotted key."""
        return dotted(self.path)

    def __str__(self) -> str:
        return f"{self.key} = {as_yaml(self.value)}  ({self.origin})"


@dataclass(frozen=True)
class Difference:
    """One key with its two values, which are ABSENT where a side has no such key."""

    key: str
    before: Any
    after: Any

    def as_dict(self) -> dict[str, Any]:
        """The key, and the values that there are."""
        sides = {"before": self.before, "after": self.after}
        return {"key": self.key, **{name: value for name, value in sides.items() if value is not ABSENT}}

    def __str__(self) -> str:
        before, after = ("(absent)" if side is ABSENT else as_yaml(side) for side in (self.before, self.after))
        return f"{self.key}: {before} -> {after}"


@dataclass
class Comparison:
    """What differs, and the keys of the schema that only one side says anything about."""

    differences: list[Difference] = field(default_factory=list[Difference])
    unrecorded: list[str] = field(default_factory=list[str])


def leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Single values with their paths; empty mappings, and lists that hold no mappings, count as single."""
    children = list(_children(value))
    if not children:
        yield path, value
    for part, child in children:
        yield from leaves(child, (*path, part))


def settings(config: ExperimentConfig, origins: Mapping[str, str]) -> list[Setting]:
    """Every value of a configuration in the order of the schema."""
    usual = {path: as_yaml(value) for path, value in leaves(ExperimentConfig().model_dump(mode="json"))}
    return [
        Setting(path, value, origins[dotted(path)], usual.get(path) != as_yaml(value))
        for path, value in leaves(config.model_dump(mode="json"))
    ]


def chosen(found: Sequence[Setting], keys: Sequence[str]) -> list[Setting]:
    """The settings that some key names, itself or as the section above; all without keys. Raises ConfigError."""
    for key in keys:
        if not any(_names(key, setting.key) for setting in found):
            _refuse(key, found)
    return [setting for setting in found if not keys or any(_names(key, setting.key) for key in keys)]


def part(document: Mapping[str, Any], paths: Collection[Path], above: Path = ()) -> dict[str, Any]:
    """What of nested values lies above or below one of the paths; a list is kept whole."""
    kept: dict[str, Any] = {}
    for name, value in document.items():
        path = (*above, name)
        inside = any(other[: len(path)] == path for other in paths)
        if any(path[: len(other)] == other for other in paths) or (inside and not isinstance(value, dict)):
            kept[name] = value
        elif inside:
            kept[name] = part(cast("dict[str, Any]", value), paths, path)
    return kept


def compare(before: Mapping[str, Any], after: Mapping[str, Any]) -> Comparison:
    """Two configurations as plain data; either may leave out keys of the schema, which are then not compared."""
    found = Comparison()
    _compare(found, (), before, after)
    return found


def _names(key: str, setting: str) -> bool:
    return setting == key or setting.startswith(f"{key}.")


def _refuse(key: str, found: Sequence[Setting]) -> None:
    above = next((setting for setting in found if _names(setting.key, key)), None)
    if above is not None:
        raise ConfigError(
            f"{key}: {above.key} is {as_yaml(above.value)} and has nothing below it", hint=f"ask for {above.key}"
        )
    raise ConfigError(f"{key} is not a key", hint=suggest(ExperimentConfig, path_of(key)))


def _children(value: Any) -> Iterator[tuple[str | int, Any]]:
    if isinstance(value, dict):
        yield from cast("dict[str, Any]", value).items()
    elif isinstance(value, list) and any(isinstance(item, dict) for item in cast("list[Any]", value)):
        yield from enumerate(cast("list[Any]", value))


def _compare(found: Comparison, path: Path, before: Any, after: Any) -> None:
    """Mappings and lists of mappings are compared key by key, everything else as a whole."""
    old, new = dict(_children(before)), dict(_children(after))
    if type(before) is not type(after) or not (old and new):
        if as_yaml(before) != as_yaml(after):
            found.differences.append(Difference(dotted(path), before, after))
        return
    fuller, other = (old, new) if len(old) >= len(new) else (new, old)
    for part in [*fuller, *(part for part in other if part not in fuller)]:
        inner = (*path, part)
        if part in old and part in new:
            _compare(found, inner, old[part], new[part])
        elif _in_schema(inner):
            found.unrecorded.append(dotted(inner))
        else:
            found.differences.append(Difference(dotted(inner), old.get(part, ABSENT), new.get(part, ABSENT)))


def _in_schema(path: Path) -> bool:
    """Whether the last part names a key of the schema: not an item of a list, not a reward's own setting."""
    key = find(ExperimentConfig, path)
    return (
        key is not None and not isinstance(path[-1], int) and key.path == tuple(p for p in path if isinstance(p, str))
    )
