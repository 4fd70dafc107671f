"""Everything that is wrong with a configuration, where loading it stops at the first kind of trouble.

What cannot be used as written is told, replaced by its default, and the rest is looked at again; a problem that has to
do with a replaced value is no news and is not told.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import ValidationError

from pipelines.config import fields
from pipelines.config.experiment import ExperimentConfig
from pipelines.config.problems import Problem, located, place_of, problems
from pipelines.config.remarks import remarks
from pipelines.errors import ConfigError, GrpoError

Layer = TypeVar("Layer")
ABSENT = object()
LINE = re.compile(r"(.*):(\d+)", re.DOTALL)


@dataclass
class Examination:
    """What came out: `config` has defaults in place of what is `replaced`, and is None if nothing could be read."""

    problems: list[Problem] = field(default_factory=list[Problem])
    warnings: list[str] = field(default_factory=list[str])
    config: ExperimentConfig | None = None
    origins: dict[fields.Path, str] = field(default_factory=dict[fields.Path, str])
    replaced: set[fields.Path] = field(default_factory=set[fields.Path])

    def add(self, found: Problem | GrpoError | str) -> None:
        """One more problem, unless it is about a replaced value or told already; a text is a warning."""
        if isinstance(found, str):
            self.warnings.append(found)
            return
        problem = located(found, self.origins) if isinstance(found, GrpoError) else found
        told = {(each.paths, each.message) for each in self.problems}  # two places may hint at different remedies
        if (problem.paths, problem.message) not in told and not _overlap(problem.paths, self.replaced):
            self.problems.append(problem)

    def in_order(self) -> list[Problem]:
        """The problems of each file from top to bottom, after those that no line can be named for."""
        return sorted(self.problems, key=self._position)

    def _position(self, problem: Problem) -> tuple[str, int]:
        lines = [LINE.fullmatch(place_of(path, self.origins)) for path in problem.paths]
        return min([(line[1], int(line[2])) for line in lines if line], default=("", 0))


def examine(files: Sequence[Path | str], overrides: Sequence[str], environ: Mapping[str, str]) -> Examination:
    """All problems of what `resolve` would load: of syntax, else of types, ranges and settings that contradict."""
    from pipelines.config import sources

    found = Examination()
    layers = [
        *(layer for file in files for layer in _read(found, lambda file=file: [sources.FileSource(Path(file))])),
        *_read(found, lambda: [*sources.environment_sources(environ)]),
        *(layer for text in overrides for layer in _read(found, lambda text=text: [sources.OverrideSource(text)])),
    ]
    if not found.problems:
        merged = sources.merge(layers)
        found.origins = merged.origins
        value = deepcopy(merged.value)
        while found.config is None and _validate(found, value):
            pass
    config = found.config
    if config is not None and not found.replaced:
        found.warnings += remarks(config.trainer, config.model, config.generation, config.data)
    return found


def _read(found: Examination, read: Callable[[], list[Layer]]) -> list[Layer]:
    try:
        return read()
    except ConfigError as error:
        found.problems.append(Problem((), error.message, error.hint))
        return []


def _validate(found: Examination, value: dict[str, Any]) -> bool:
    """Set the configuration, or tell what is wrong and remove it from `value`; False if nothing could be removed."""
    try:
        found.config = ExperimentConfig.model_validate(value)
    except ValidationError as error:
        wrong = problems(error, found.origins)
        for problem in wrong:
            found.add(problem)
        dropped: set[fields.Path] = set()
        for problem in wrong:
            if not _overlap(problem.paths, dropped):
                dropped |= _drop(value, problem.paths)
        found.replaced |= dropped
        return bool(dropped)
    return True


def _drop(value: dict[str, Any], paths: Sequence[fields.Path]) -> set[fields.Path]:
    """Remove what paths lead to; where there is none of it, the value around the first (an item takes its list along).

    Returns what was removed.
    """
    dropped = {path for path in paths if _removed(value, path)}
    around = (paths[0][:length] for length in range(len(paths[0]) - 1, 0, -1))
    return dropped or set(islice((path for path in around if _removed(value, path)), 1))


def _removed(value: dict[str, Any], path: fields.Path) -> bool:
    """Whether there was a named value at this path; it is gone now."""
    holder: Any = value
    for part in path[:-1]:
        holder = _below(holder, part)
    return isinstance(holder, dict) and cast("dict[str | int, Any]", holder).pop(path[-1], ABSENT) is not ABSENT


def _below(holder: Any, part: str | int) -> Any:
    if isinstance(holder, dict):
        return cast("dict[str | int, Any]", holder).get(part)
    items = cast("list[Any]", holder) if isinstance(holder, list) else []
    return items[part] if isinstance(part, int) and part < len(items) else None


def _overlap(paths: Iterable[fields.Path], others: Iterable[fields.Path]) -> bool:
    """Whether some path leads to one of the others, or the other way round."""
    return any(all(a == b for a, b in zip(path, other, strict=False)) for path in paths for other in others)
