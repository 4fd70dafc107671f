"""Run one evaluator on one model: decode its items in batches, ask for verdicts, reduce them to numbers.

A record is one completion as a plain dict: a line of the per-item JSONL. Metrics are computed from records alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipelines.config import GenerationConfig
from pipelines.errors import ConfigError
from pipelines.evaluation.base import BaseEvaluator, EvaluatorConfig
from pipelines.evaluation.completions import Completed, Prompt, complete
from pipelines.evaluation.statistics import wilson
from pipelines.rewards.format import WELL_FORMED, structure

if TYPE_CHECKING:
    from pipelines.models.load import LoadedModel

Record = dict[str, Any]
Progress = Callable[[int, int], None]
"""Called with how many items are done, of how many."""


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
    """A record for each completion of each of the prompts, sample by sample within an item."""
    settings = evaluator.settings
    sampling = generation.model_copy(update={"temperature": temperature_of(settings, generation)})
    records: list[Record] = []
    batches = complete(
        loaded,
        prompts,
        sampling,
        group_size=settings.samples,
        max_tokens=settings.max_tokens or max_tokens,
        seed=seed,
        purpose="eval",
    )
    for batch in batches:
        records += _records(evaluator, batch)
        if progress is not None:
            progress(len(records) // settings.samples, len(prompts))
    return records


def _records(evaluator: BaseEvaluator, batch: Completed) -> list[Record]:
    group_size = batch.rollouts.group_size
    records: list[Record] = []
    for n, context in enumerate(batch.contexts):
        prompt = batch.prompts[n // group_size]
        verdict = evaluator.verdict(context)
        records.append(
            {
                "item": prompt.index,
                "sample": n % group_size,
                "correct": verdict.correct,
                "prompt": context.prompt_text,
                "completion": context.generated_text,
                "extracted": verdict.extracted,
                "expected": verdict.expected,
                "tokens": int(batch.rollouts.lengths[n]),
                "finish_reason": context.finish_reason,
                "well_formed": structure(context) == WELL_FORMED,
            }
        )
    return records


def by_item(records: Sequence[Mapping[str, Any]]) -> dict[int, float]:
    """The score of each item: the fraction of its samples that are correct."""
    verdicts: dict[int, list[bool]] = {}
    for record in records:
        verdicts.setdefault(record["item"], []).append(record["correct"])
    return {item: sum(correct) / len(correct) for item, correct in verdicts.items()}


def metrics(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Accuracy with its Wilson 95 % interval over the n items, and how the completions look.

    `mean_length` in tokens, end-of-text counted; `truncation_rate` is the fraction that reached the length limit;
    `format_rate` the fraction with one well-formed think block and an answer.
    """
    scores = by_item(records)
    n, count = len(scores), len(records)
    low, high = wilson(sum(scores.values()), n)
    return {
        "accuracy": sum(scores.values()) / n,
        "low": low,
        "high": high,
        "n": n,
        "samples": count // n,
        "mean_length": sum(record["tokens"] for record in records) / count,
        "truncation_rate": sum(record["finish_reason"] == "length" for record in records) / count,
        "format_rate": sum(record["well_formed"] for record in records) / count,
    }
