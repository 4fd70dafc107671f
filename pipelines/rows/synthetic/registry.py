"""Every task by name, and the rows of a `data.synthetic` section."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches

from pipelines.config import SyntheticConfig
from pipelines.errors import ConfigError
from pipelines.rows.records import Row
from pipelines.rows.synthetic import reasoning_gym
from pipelines.rows.synthetic.arithmetic import Arithmetic
from pipelines.rows.synthetic.base import Example, Task
from pipelines.rows.synthetic.countdown import Countdown
from pipelines.rows.synthetic.letter_counting import LetterCounting
from pipelines.rows.synthetic.list_sorting import ListSorting
from pipelines.rows.synthetic.mcq import Mcq
from pipelines.rows.synthetic.string_reversal import StringReversal

TASKS: dict[str, type[Task]] = {
    task.name: task for task in (Arithmetic, Countdown, LetterCounting, ListSorting, StringReversal, Mcq)
}


def generate(synthetic: SyntheticConfig) -> dict[str, Iterator[Row]]:
    """The rows of `train` and `val`, made while they are consumed: all different, and none in both.

    The section alone decides them. What cannot be is refused before the first row: ConfigError for a task, difficulty
    or option that does not exist, DataError if there are not as many different problems.
    """
    splits = _task(synthetic).splits(synthetic.train_rows, synthetic.val_rows, synthetic.seed)
    return {split: _rows(split, examples) for split, examples in splits.items()}


def _task(synthetic: SyntheticConfig) -> Task | reasoning_gym.ReasoningGym:
    name = synthetic.task
    if name in TASKS:
        return TASKS[name](synthetic.difficulty, synthetic.options)
    others = reasoning_gym.names()
    if name.removeprefix(reasoning_gym.PREFIX) not in others:
        close = get_close_matches(name, (*TASKS, *others), n=1)
        guess = f"did you mean {close[0]!r}? " if close else ""
        absent = ", and reasoning-gym is not installed" if not others else ", nor in reasoning-gym"
        install = "" if others else f"; for others {reasoning_gym.INSTALL}"
        raise ConfigError(
            f"data.synthetic.task: there is no task {name!r} here{absent}",
            hint=f"{guess}built in are {', '.join(TASKS)}{install}",
        )
    return reasoning_gym.ReasoningGym(synthetic)


def _rows(split: str, examples: Iterator[Example]) -> Iterator[Row]:
    for number, (prompt, completion, meta) in enumerate(examples, start=1):
        yield Row(prompt, completion, meta=meta, source=f"synthetic {split}:{number}")
