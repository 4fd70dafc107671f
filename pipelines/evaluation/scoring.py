"""Run one evaluator on one model: choose its items, ask it for their records."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pipelines.config import GenerationConfig
from pipelines.errors import ConfigError
from pipelines.evaluation.base import BaseEvaluator, EvaluatorConfig
from pipelines.evaluation.completions import Prompt
from pipelines.evaluation.decoding import Decoding
from pipelines.evaluation.records import Record

if TYPE_CHECKING:
    from pipelines.models.load import LoadedModel

Progress = Callable[[int, int], None]
"""Called with how many items are done, of how many."""
TELL_SECONDS = 10.0
"""Between two such calls, until items are judged."""


def temperature_of(settings: EvaluatorConfig, generation: GenerationConfig) -> float:
    """Greedy unless more than one sample is wanted; ConfigError for several samples that would all be the same."""
    temperature = settings.temperature
    if temperature is None:
        temperature = 0.0 if settings.samples == 1 else generation.temperature
    if settings.samples > 1 and temperature == 0:
        raise ConfigError(
            f"{settings.samples} greedy samples of an item are {settings.samples} times the same one",
            hint="give a temperature above 0 (--temperature 1.0), or one sample",
        )
    return temperature


def chosen(prompts: Sequence[Prompt], limit: int | None, seed: int) -> list[Prompt]:
    """`limit` of the items, drawn by the seed, in their own order; every item without a limit."""
    if limit is None or limit >= len(prompts):
        return list(prompts)
    picks = random.Random(f"{seed}/limit").sample(range(len(prompts)), limit)
    return [prompts[i] for i in sorted(picks)]


def score(
    evaluator: BaseEvaluator,
    prompts: Sequence[Prompt],
    loaded: LoadedModel,
    generation: GenerationConfig,
    *,
    max_tokens: int,
    seed: int,
    progress: Progress | None = None,
) -> list[Record]:
    """The records of the prompts, item by item in their order."""
    settings = evaluator.settings
    sampling = generation.model_copy(update={"temperature": temperature_of(settings, generation)})
    tell = None if progress is None else _Told(progress, settings.samples, len(prompts))
    limit = settings.max_tokens or max_tokens
    decoding = Decoding(sampling, settings.samples, limit, seed, None if tell is None else tell.ended)
    records: list[Record] = []
    items: set[int] = set()
    for some in evaluator.measure(loaded, prompts, decoding):
        records += some
        items.update(record["item"] for record in some)
        if tell is not None:
            tell.done(len(items))
    return records


class _Told:
    """Progress by completions that have ended, and by items that have been judged."""

    def __init__(self, progress: Progress, samples: int, items: int) -> None:
        self.progress = progress
        self.samples = samples
        self.items = items
        self._ended = 0
        self._told = 0
        self._when = time.monotonic()

    def ended(self, completions: int) -> None:
        """So many more."""
        self._ended += completions
        if time.monotonic() - self._when >= TELL_SECONDS:
            self.done(self._ended // self.samples)

    def done(self, items: int) -> None:
        """So many in all."""
        if items > self._told:
            self.progress(items, self.items)
            self._told, self._when = items, time.monotonic()
