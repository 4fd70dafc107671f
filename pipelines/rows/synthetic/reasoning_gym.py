"""Data sets of the package reasoning-gym, by name, where it is installed.

`create_dataset(name, size=, seed=, **options)` has entries with a `question`, an `answer` and `metadata`, and
`score_answer(answer, entry)` is the checker. Entries are asked for by their index, since iterating adds random ids; a
row keeps the index, not the metadata, which is not always JSON. Run with reasoning-gym 0.1.25.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import redirect_stdout
from functools import lru_cache
from hashlib import blake2b
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

from pipelines.config import SyntheticConfig
from pipelines.errors import ConfigError, DataError
from pipelines.rows.synthetic.base import Example

PACKAGE = "reasoning_gym"
INSTALL = "`pip install reasoning-gym` (Python 3.11 or newer)"
PREFIX = "reasoning_gym:"
"""In front of a name that a built-in task has too."""
SPARE = 20
"""How many times as many entries are looked at as rows are wanted: simple data sets repeat their questions."""
REFUSALS = (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError)
"""What the package raises for a name, an option or an entry that it cannot make, or an answer that it cannot read."""


class Source(NamedTuple):
    """All that decides the entries of a data set; `options` as JSON."""

    name: str
    size: int
    seed: int
    options: str


class ReasoningGym:
    """One data set as a task; it has options of its own instead of a difficulty."""

    def __init__(self, synthetic: SyntheticConfig) -> None:
        default = SyntheticConfig.model_fields["difficulty"].default
        if synthetic.difficulty != default:
            raise ConfigError(
                "data.synthetic.difficulty: data sets of reasoning-gym have none",
                hint=f"leave it at {default} and use the data set's own settings, in data.synthetic.options",
            )
        self.name = synthetic.task.removeprefix(PREFIX)
        self.options = json.dumps(synthetic.options, sort_keys=True)

    def splits(self, train_rows: int, val_rows: int, seed: int) -> dict[str, Iterator[Example]]:
        """`val` is the first questions that differ, `train` those that follow; a digest of each is remembered."""
        rows = train_rows + val_rows
        source = Source(self.name, SPARE * rows, seed, self.options)
        opened(source)
        return {
            "train": different(examples(source), val_rows, rows),
            "val": different(examples(source), 0, val_rows),
        }


def is_installed() -> bool:
    return find_spec(PACKAGE) is not None


def names() -> tuple[str, ...]:
    """The data sets of the package; none where it is not installed."""
    return tuple(import_module(f"{PACKAGE}.factory").DATASETS) if is_installed() else ()


@lru_cache(maxsize=4)
def opened(source: Source) -> Any:
    """The package's data set. ConfigError if it cannot be made with these options."""
    package = import_module(PACKAGE)
    try:
        return package.create_dataset(source.name, size=source.size, seed=source.seed, **json.loads(source.options))
    except REFUSALS as error:
        raise ConfigError(
            f"data.synthetic.options: reasoning-gym refuses {source.name!r} with {source.options}:"
            f" {type(error).__name__}: {error}",
            hint="the settings of each data set are in the package's GALLERY.md",
        ) from error


def examples(source: Source) -> Iterator[Example]:
    """Every entry as a row; repeated questions too."""
    for index in range(source.size):
        try:
            entry = _made(source, index)
        except REFUSALS as error:
            raise DataError(
                f"data.synthetic: entry {index} of reasoning-gym's {source.name!r}: {type(error).__name__}: {error}",
                hint="other data.synthetic.options or another data.synthetic.seed may do",
            ) from error
        question, answer = str(entry["question"]), entry["answer"]
        place = {**source._asdict(), "index": index, "asked": _digest(question)}
        yield Example(question, answer if isinstance(answer, str) and answer.strip() else None, {PACKAGE: place})


def different(found: Iterable[Example], start: int, stop: int) -> Iterator[Example]:
    """Those whose prompt is new, from the start-th to before the stop-th. DataError if there are not as many."""
    seen: set[str] = set()
    if start == stop:
        return
    for example in found:
        asked = _digest(example.prompt)
        if asked in seen:
            continue
        seen.add(asked)
        if len(seen) > start:
            yield example
        if len(seen) == stop:
            return
    raise DataError(
        f"data.synthetic.train_rows and data.synthetic.val_rows: {stop} different questions asked for,"
        f" but only {len(seen)} were found",
        hint="ask for fewer rows, or set data.synthetic.options so that there are more questions",
    )


@lru_cache(maxsize=1024)
def entry_of(source: Source, index: int, asked: str) -> dict[str, Any]:
    """The entry behind a row. ValueError if the package that is installed now asks something else there."""
    entry = _made(source, index)
    if _digest(str(entry["question"])) != asked:
        raise ValueError(
            f"entry {index} of {source.name!r} is another question here: another version of reasoning-gym made the"
            " rows, or the data set differs from process to process (then set PYTHONHASHSEED=0 in the environment and"
            " preprocess with --force)"
        )
    return entry


def _made(source: Source, index: int) -> dict[str, Any]:
    with redirect_stdout(sys.stderr):  # some data sets print; stdout is for data
        return opened(source)[index]


def score(answer: str, place: Mapping[str, Any]) -> tuple[float, str]:
    """What the data set's own scorer gives an answer to the row with this `meta.reasoning_gym`, and why if it is told.

    A few scorers raise where they cannot read an answer: it is worth 0, and the reason is what they say.
    """
    source = Source(place["name"], place["size"], place["seed"], place["options"])
    entry = entry_of(source, place["index"], place["asked"])
    try:
        return float(opened(source).score_answer(answer=answer, entry=entry)), ""
    except REFUSALS as error:
        return 0.0, f"the scorer cannot read it: {type(error).__name__}: {error}"


def _digest(text: str) -> str:
    return blake2b(text.encode(), digest_size=8).hexdigest()
