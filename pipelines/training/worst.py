"""The longest rows that an update of a run can have: what its memory depends on."""

from dataclasses import dataclass, replace

import numpy as np

from pipelines.algorithms.base import BaseAlgorithm
from pipelines.config import ExperimentConfig, GenerationConfig
from pipelines.tokens.dataset import TokenDataset
from pipelines.training.sequences import Adjustments, Sequences

SHIFTS = (
    "bias_close_think",
    "bias_answer_start",
    "punish_extra_think_end",
    "punish_reopen_think",
    "think_end_early_bias",
)
"""The settings of `generation` that add to logits."""


@dataclass(frozen=True)
class Worst:
    """The B longest prompts, their completions, and the references that are taught beside or instead of those."""

    prompts: list[np.ndarray]
    completion_tokens: int
    """0 where nothing is sampled."""
    sequences: Sequences | None
    references: Sequences | None
    seen: bool
    """Whether the rows are those of the data; else they are as long as the configuration allows."""


def longest(dataset: TokenDataset, count: int, *, references: bool = False) -> list[int]:
    """The rows with the longest prompts, or prompts and references; from the first again if there are too few."""
    lengths = dataset.prompts.lengths() + (dataset.completions.lengths() if references else 0)
    order = np.argsort(-lengths, kind="stable")[:count]
    return np.resize(order, count).tolist()


def worst(config: ExperimentConfig, dataset: TokenDataset | None, algorithm: BaseAlgorithm) -> Worst:
    """Of the data set, or of the limits of the configuration where it has not been made yet."""
    trainer, limits = config.trainer, config.data
    count, samples = trainer.prompts_per_update, trainer.num_rollout_samples
    taught = not algorithm.uses_rollouts or (trainer.use_sft_on_answer and trainer.sft_weight > 0)
    if dataset is None:
        # No two alike, or they would share one prefix.
        prompts = [np.full(limits.max_prompt_len, number, np.int32) for number in range(count)]
        pairs = [(prompt, np.zeros(limits.max_gen_len, np.int32)) for prompt in prompts]
    else:
        prompts = [dataset.prompt_tokens(row) for row in longest(dataset, count)]
        rows = longest(dataset, count, references=True) if taught else []
        pairs = [(dataset.prompt_tokens(row), dataset.completion_tokens(row)) for row in rows]
    references = _sequences(*map(list, zip(*pairs, strict=True))) if taught else None
    if not algorithm.uses_rollouts:
        return Worst(prompts, 0, references, None, dataset is not None)
    completions = [np.zeros(limits.max_gen_len, np.int32)] * (count * samples)
    sequences = _sequences([prompt for prompt in prompts for _ in range(samples)], completions)
    sampled = replace(sequences, adjustments=_adjustments(config.generation, completions))
    return Worst(prompts, limits.max_gen_len, sampled, references, dataset is not None)


def _adjustments(generation: GenerationConfig, completions: list[np.ndarray]) -> Adjustments | None:
    """A shift of one logit at every token, if any may be shifted, and the penalty."""
    shifted = any(getattr(generation, name) for name in SHIFTS)
    none, zero = (np.zeros((len(completions[0]), 1), dtype) for dtype in (np.int32, np.float32))
    found = Adjustments(
        shift_ids=[none] * len(completions) if shifted else None,
        shift_values=[zero] * len(completions) if shifted else None,
        repetition_penalty=generation.repetition_penalty,
    )
    return found if found.any else None


def _sequences(prompts: list[np.ndarray], completions: list[np.ndarray]) -> Sequences:
    rows = len(prompts)
    return Sequences(prompts, completions, np.ones(rows, np.float32), np.zeros(rows, bool))
