"""What every evaluator is: a list of prompts, and a verdict on each completion.

An evaluator declares its keys in a nested `Config`; `limit`, `samples`, `temperature` and `max_tokens` come with every
one. It imports no mlx: the model's part is `scoring.py`, the same for all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from pipelines.config import ExperimentConfig, Section
from pipelines.evaluation.completions import Prompt
from pipelines.rewards.context import RewardContext

if TYPE_CHECKING:
    from pipelines.tokens.dataset import TokenDataset


class EvaluatorConfig(Section):
    """Keys of every evaluator, under `evaluation[i].config`."""

    limit: int | None = Field(default=None, ge=1)
    """Score only so many items, drawn with the run's seed (null = all)."""

    samples: int = Field(default=1, ge=1)
    """Completions an item; the score of an item is their mean."""

    temperature: float | None = Field(default=None, ge=0)
    """Sampling temperature (null = greedy for one sample, else generation.temperature)."""

    max_tokens: int | None = Field(default=None, ge=1)
    """Most tokens of a completion (null = data.max_gen_len)."""


@dataclass(frozen=True)
class Verdict:
    """Whether a completion is right, what was read from it as its answer, and what was expected."""

    correct: bool
    extracted: str | None
    expected: str | None


@dataclass(frozen=True)
class Sources:
    """Where items can come from. `validation` opens the run's own validation prompts, tokenised as for training;
    `evaluation.questions.rendered` renders rows of an evaluator's own in the same way.
    """

    tokenizer: Any
    config: ExperimentConfig
    validation: Callable[[], TokenDataset]


class BaseEvaluator(ABC):
    """One benchmark. Items and verdicts must depend on the configuration and the sources alone."""

    Config: ClassVar[type[EvaluatorConfig]] = EvaluatorConfig

    def __init__(self, config: Mapping[str, Any] | None = None) -> None:
        self.settings = self.Config.model_validate(dict(config or {}))

    @abstractmethod
    def items(self, sources: Sources) -> Sequence[Prompt]:
        """Every prompt of the benchmark, in an order that never changes; `limit` is applied later."""

    @abstractmethod
    def verdict(self, context: RewardContext) -> Verdict:
        """The verdict on one completion; the context carries its row: reference, test cases, meta."""

    def files(self) -> dict[str, Path]:
        """Files that decide what the items are, by name; their content is part of the cached score's key.

        None: the items are the run's validation rows.
        """
        return {}
