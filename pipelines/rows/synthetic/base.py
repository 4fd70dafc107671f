"""What a generated task is: problems of one difficulty, in two splits that share none."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any, ClassVar, NamedTuple, TypeVar

from pydantic import ValidationError

from pipelines.config import Section
from pipelines.errors import ConfigError, DataError
from pipelines.rows.synthetic.draws import Draw, Order

OptionsT = TypeVar("OptionsT", bound=Section)


class Example(NamedTuple):
    """A row to be: `completion` is None where nobody knows a good one."""

    prompt: str
    completion: str | None
    meta: dict[str, Any]


class NoOptions(Section):
    """For tasks that have none."""


class Task(ABC):
    """One kind of problem, at one difficulty, with its options."""

    name: ClassVar[str]
    checked_by: ClassVar[str]
    """The reward that gives the row's own completion 1 and a wrong answer 0."""
    hardest: ClassVar[int]
    """The difficulties are 1 to this one."""
    Options: ClassVar[type[Section]] = NoOptions

    def __init__(self, difficulty: int, options: Mapping[str, Any]) -> None:
        if difficulty > self.hardest:
            raise ConfigError(
                f"data.synthetic.difficulty: {self.name} has no such difficulty", hint=f"it has 1 to {self.hardest}"
            )
        self.difficulty = difficulty
        self.settings = checked_options(self.Options, options, self.name)

    @abstractmethod
    def splits(self, train_rows: int, val_rows: int, seed: int) -> dict[str, Iterator[Example]]:
        """So many different problems for `train` and `val`. DataError, before the first, if there are too few."""


class NumberedTask(Task):
    """A task whose problems can be counted and numbered: any of them is made from its number alone.

    A permutation of the numbers that the seed decides gives the rows: its beginning is `val`, what follows `train`.
    So no problem comes twice, and nothing has to be remembered to make sure.
    """

    @property
    @abstractmethod
    def size(self) -> int:
        """How many different problems there are."""

    @abstractmethod
    def example(self, index: int, draw: Draw) -> Example:
        """Problem number `index`; `draw` decides what does not make it another problem, such as the order of a list."""

    def splits(self, train_rows: int, val_rows: int, seed: int) -> dict[str, Iterator[Example]]:
        refuse_scarcity(train_rows + val_rows, self.size, f"{self.name} of difficulty {self.difficulty}")
        key = (self.name, self.difficulty, seed)
        order = Order(self.size, *key)
        positions = {"train": range(val_rows, val_rows + train_rows), "val": range(val_rows)}
        return {
            split: (self.example(index, Draw(*key, index)) for index in map(order.__getitem__, places))
            for split, places in positions.items()
        }


def thought(steps: str, answer: str) -> str:
    """A completion: the working in think tags, then the answer alone."""
    return f"<think>{steps}</think>{answer}"


def refuse_scarcity(rows: int, size: int, problems: str) -> None:
    """DataError if there are fewer problems than rows."""
    if rows > size:
        raise DataError(
            f"data.synthetic.train_rows and data.synthetic.val_rows: {rows} rows asked for,"
            f" but only {size} problems exist for {problems}",
            hint="ask for fewer rows, or raise data.synthetic.difficulty",
        )


def checked_options(model: type[OptionsT], given: Mapping[str, Any], task: str) -> OptionsT:
    """The options with their defaults. ConfigError that names the first one that cannot be used."""
    try:
        return model.model_validate(dict(given))
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(["data.synthetic.options", *map(str, problem["loc"])])
        known = ", ".join(model.model_fields)
        if problem["type"] != "extra_forbidden":
            message = problem["msg"].replace("Input should", "should", 1)
            raise ConfigError(f"{key}: {message}", hint=f"options of {task}: {known}") from error
        close = get_close_matches(str(problem["loc"][-1]), model.model_fields, n=1)
        guess = f"did you mean {close[0]!r}? " if close else ""
        hint = f"{guess}it has {known}" if known else "it has none: leave options empty"
        raise ConfigError(f"{key}: {task} has no such option", hint=hint) from error
