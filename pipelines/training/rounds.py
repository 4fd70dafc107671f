"""Rounds of rollouts: prompts become completions, regions and scores; several rounds make one update."""

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from pipelines.algorithms.regions import tags_for
from pipelines.config import ExperimentConfig
from pipelines.evaluation.completions import completion_contexts, thinking_lengths
from pipelines.generation.controls import make_controls
from pipelines.generation.engine import generate
from pipelines.generation.rollouts import Rollouts
from pipelines.generation.seeds import row_keys
from pipelines.models.load import LoadedModel
from pipelines.rewards import RewardContext
from pipelines.rewards.composer import Failure, Scores
from pipelines.rewards.workers import ParallelComposer
from pipelines.tokens.dataset import TokenDataset
from pipelines.training.distributed import ALONE, Arrays, Ranks

PART_ROWS = 64
"""Completions that are scored together while others are decoded."""


@dataclass(frozen=True)
class Round:
    """Completions of some prompts, group by group, with what became of them."""

    rollouts: Rollouts
    thinking: np.ndarray  # [N] leading thinking tokens
    contexts: list[RewardContext]
    scores: Scores


class Roller:
    """Completes and scores prompts of the data set with the policy as it is now."""

    def __init__(
        self,
        loaded: LoadedModel,
        dataset: TokenDataset,
        composer: ParallelComposer,
        config: ExperimentConfig,
        seed: int,
        *,
        ranks: Ranks = ALONE,
    ) -> None:
        self.ranks = ranks
        self.loaded = loaded
        self.dataset = dataset
        self.composer = composer
        self.config = config
        self.seed = seed
        self.group_size = config.trainer.num_rollout_samples
        self.tags = tags_for(loaded.tokenizer, config.generation)
        self.controls = make_controls(loaded.tokenizer, config.generation)

    def round(self, step: int, indices: Sequence[int], before: Sequence[int] = ()) -> Round:
        """Complete the prompts at `indices`, every rank some; `before` are those that stand in the update already.

        Raises RewardError when too many rewards failed.
        """
        names = distinct([*before, *indices], len(self.dataset))[len(before) :]
        own, own_names = self.ranks.part(indices), self.ranks.part(names)
        part = self._part(step, own, own_names) if own else None
        found = self._whole(step, indices, part) if part is None or self.ranks.size > 1 else part
        self.composer.tolerate(found.scores.failures, len(found.scores.totals))
        return found

    def _part(self, step: int, indices: Sequence[int], names: Sequence[int]) -> Round:
        """Complete prompts here."""
        preopened = [self.dataset.preopened(i) for i in indices]
        scoring = _Scoring(self, step, indices, preopened)
        rollouts = generate(
            self.loaded.model,
            [self.dataset.prompt_tokens(i) for i in indices],
            group_size=self.group_size,
            sampling=self.config.generation,
            eos_ids=self.loaded.eos_ids,
            max_tokens=self.config.data.max_gen_len,
            seeds=row_keys(self.seed, "rollout", step, names, self.group_size),
            controls=self.controls,
            preopened=preopened,
            record_drawn=self.config.trainer.loss.sampler_correction is not None,
            on_finished=scoring.take,
        )
        return scoring.round(rollouts)

    def _whole(self, step: int, indices: Sequence[int], part: Round | None) -> Round:
        """The rounds of all ranks as one; its contexts are made again, where they will be written."""
        prompts = [self.dataset.prompt_tokens(i) for i in indices]
        parts = [found for found in self.ranks.gathered_arrays(*_sent(part)) if found[1]]
        found = joined([_received(arrays, said, self.group_size) for arrays, said in parts])
        slowest = max(said["rollouts"]["seconds"] for _, said in parts)
        rollouts = replace(found.rollouts, prompts=prompts, seconds=slowest)
        if not self.ranks.leads:
            return replace(found, rollouts=rollouts)
        asked, opened = [self.dataset.row(i) for i in indices], [self.dataset.preopened(i) for i in indices]
        contexts = completion_contexts(
            rollouts, asked, opened, self.loaded.tokenizer, self.tags, step=step, lengths=found.thinking
        )
        return replace(found, rollouts=rollouts, contexts=contexts)


class _Scoring:
    """Scores completions that have ended while the others are still being decoded."""

    def __init__(self, roller: Roller, step: int, indices: Sequence[int], preopened: Sequence[bool]) -> None:
        self.roller = roller
        self.step = step
        self.asked = [roller.dataset.row(i) for i in indices]
        self.preopened = preopened
        self.rows: list[int] = []  # in the order in which they ended, as all that follows
        self.thinking: list[int] = []
        self.contexts: list[RewardContext] = []
        self.parts: list[Future[Scores]] = []
        self.sent = 0

    def take(self, rows: np.ndarray, ended: Rollouts) -> None:
        """Rows that have ended; some of them at a time go to the workers."""
        prompts = rows // self.roller.group_size
        opened, tokenizer, tags = [self.preopened[p] for p in prompts], self.roller.loaded.tokenizer, self.roller.tags
        thinking = thinking_lengths(ended, opened, tokenizer, tags)
        asked = [self.asked[p] for p in prompts]
        self.contexts += completion_contexts(ended, asked, opened, tokenizer, tags, step=self.step, lengths=thinking)
        self.rows += rows.tolist()
        self.thinking += thinking.tolist()
        if len(self.contexts) - self.sent >= PART_ROWS:
            self._send()

    def round(self, rollouts: Rollouts) -> Round:
        """Everything in the order of the rollouts."""
        if self.sent < len(self.contexts):
            self._send()
        order = np.argsort(self.rows)
        scores = _joined_scores([part.result() for part in self.parts])
        failures = [replace(failure, row=self.rows[failure.row]) for failure in scores.failures]
        failures.sort(key=lambda failure: (scores.names.index(failure.name), failure.row))
        return Round(
            rollouts,
            np.array(self.thinking, np.int32)[order],
            [self.contexts[place] for place in order],
            replace(
                scores,
                values=scores.values[order],
                totals=scores.totals[order],
                failures=tuple(failures),
                details=tuple(scores.details[place] for place in order),
            ),
        )

    def _send(self) -> None:
        self.parts.append(self.roller.composer.submit(self.contexts[self.sent :], part=True))
        self.sent = len(self.contexts)


def joined(rounds: Sequence[Round]) -> Round:
    """Several rounds as one, in their order."""
    if len(rounds) == 1:
        return rounds[0]
    return Round(
        _joined_rollouts([one.rollouts for one in rounds]),
        np.concatenate([one.thinking for one in rounds]),
        [context for one in rounds for context in one.contexts],
        _joined_scores([one.scores for one in rounds]),
    )


def _sent(part: Round | None) -> tuple[Arrays, dict[str, Any]]:
    """What other ranks need of a round: all but its texts, and the prompts, which they have. Nothing of no round."""
    if part is None:
        return {}, {}
    arrays: Arrays = {"thinking": part.thinking}
    said: dict[str, Any] = {}
    for name, whole in (("rollouts", part.rollouts), ("scores", part.scores)):
        fields = {field: value for field, value in vars(whole).items() if field not in ("prompts", "group_size")}
        arrays |= {f"{name}.{key}": value for key, value in fields.items() if isinstance(value, np.ndarray)}
        said[name] = {key: value for key, value in fields.items() if not isinstance(value, np.ndarray)}
    said["scores"] |= {
        "failures": [asdict(failure) for failure in part.scores.failures],
        "details": [{name: list(reasons) for name, reasons in row.items()} for row in part.scores.details],
    }
    return arrays, said


def _received(arrays: Arrays, said: dict[str, Any], group_size: int) -> Round:
    """The inverse, without prompts and contexts; of what a reward said only the names of its reasons are left."""

    def fields(name: str) -> dict[str, Any]:
        dotted = {key: values for key, values in arrays.items() if key.startswith(f"{name}.")}
        return {key.partition(".")[2]: values for key, values in dotted.items()} | said[name]

    scores = fields("scores")
    scores["names"] = tuple(scores["names"])
    scores["failures"] = tuple(Failure(**failure) for failure in scores["failures"])
    scores["details"] = tuple({name: dict.fromkeys(keys) for name, keys in row.items()} for row in scores["details"])
    rollouts = Rollouts(prompts=[], group_size=group_size, **fields("rollouts"))
    return Round(rollouts, arrays["thinking"], [], Scores(**scores))


def _joined_rollouts(parts: Sequence[Rollouts]) -> Rollouts:
    width = max(part.tokens.shape[1] for part in parts)

    def stacked(name: str) -> np.ndarray | None:
        arrays = [getattr(part, name) for part in parts]
        if any(array is None for array in arrays):
            return None
        padded = [np.pad(a, ((0, 0), (0, width - a.shape[1]), *((0, 0),) * (a.ndim - 2))) for a in arrays]
        return np.concatenate(padded)

    padded = ("tokens", "logprobs", "forced", "shift_ids", "shift_values", "drawn_logprobs")
    return replace(
        parts[0],
        prompts=[prompt for part in parts for prompt in part.prompts],
        lengths=np.concatenate([part.lengths for part in parts]),
        finish_reasons=[reason for part in parts for reason in part.finish_reasons],
        seconds=sum(part.seconds for part in parts),
        **{name: stacked(name) for name in padded},
    )


def _joined_scores(parts: Sequence[Scores]) -> Scores:
    starts = np.cumsum([0, *(len(part.totals) for part in parts)])
    return replace(
        parts[0],
        values=np.concatenate([part.values for part in parts]),
        totals=np.concatenate([part.totals for part in parts]),
        failures=tuple(
            replace(failure, row=failure.row + int(start))
            for part, start in zip(parts, starts, strict=False)
            for failure in part.failures
        ),
        seconds={name: sum(part.seconds[name] for part in parts) for name in parts[0].seconds},
        details=tuple(detail for part in parts for detail in part.details),
    )


def distinct(indices: Sequence[int], rows: int) -> list[int]:
    """Names for the prompts of one update: a prompt that stands in it twice is sampled anew the second time."""
    seen: dict[int, int] = {}
    names = []
    for index in indices:
        names.append(int(index) + rows * seen.get(index, 0))
        seen[index] = seen.get(index, 0) + 1
    return names
