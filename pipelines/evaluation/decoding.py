"""The usual way to score: decode completions of the prompts, batch by batch, and ask for a verdict on each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pipelines.config import GenerationConfig
from pipelines.evaluation.completions import Completed, Prompt, complete
from pipelines.evaluation.records import Record, Verdict
from pipelines.rewards.context import RewardContext
from pipelines.rewards.format import WELL_FORMED, structure

if TYPE_CHECKING:
    from pipelines.models.load import LoadedModel


@dataclass(frozen=True)
class Decoding:
    """How completions are drawn; `sampling` has the temperature of the benchmark already."""

    sampling: GenerationConfig
    samples: int
    max_tokens: int
    seed: int
    on_finished: Callable[[int], None] | None = None
    """Told how many more completions have ended, while others go on."""


def judged(
    loaded: LoadedModel,
    prompts: Sequence[Prompt],
    decoding: Decoding,
    verdicts: Callable[[Sequence[RewardContext]], Sequence[Verdict]],
    *,
    stops: Sequence[str] = (),
) -> Iterator[list[Record]]:
    """A record for each completion of each prompt, sample by sample within an item, a batch of items at a time.

    `stops` end a completion, besides those of the configuration; it is judged without what it ends with.
    """
    sampling = decoding.sampling
    batches = complete(
        loaded,
        prompts,
        sampling.model_copy(update={"stop": (*sampling.stop, *stops)}),
        group_size=decoding.samples,
        max_tokens=decoding.max_tokens,
        seed=decoding.seed,
        purpose="eval",
        on_finished=decoding.on_finished,
    )
    for batch in batches:
        contexts = [ended(context, stops) for context in batch.contexts]
        yield _records(batch, contexts, verdicts(contexts))


def ended(context: RewardContext, stops: Sequence[str]) -> RewardContext:
    """The completion up to the first of these texts in its answer."""
    text = context.generated_text
    start = max(0, text.rfind(context.answer))
    places = [place for stop in stops if (place := text.find(stop, start)) >= 0]
    if not places:
        return context
    end = min(places)
    return replace(context, generated_text=text[:end], answer=text[start:end].strip())


def _records(batch: Completed, contexts: Sequence[RewardContext], verdicts: Sequence[Verdict]) -> list[Record]:
    group_size = batch.rollouts.group_size
    records: list[Record] = []
    for n, (context, verdict) in enumerate(zip(contexts, verdicts, strict=True)):
        record = {
            "item": batch.prompts[n // group_size].index,
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
        found = {"also": dict(verdict.also), "reason": verdict.reason}
        records.append(record | {name: value for name, value in found.items() if value} | dict(verdict.details))
    return records
