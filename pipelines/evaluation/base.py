"""What every evaluator is: a list of prompts, and a verdict on each completion, or a measurement of its own.

An evaluator declares its keys in a nested `Config`; those of `EvaluatorConfig` come with every one. It imports no mlx
at module level: a score that is there already is then found without it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from pipelines.config import ExperimentConfig, Section
from pipelines.evaluation.completions import Prompt
from pipelines.evaluation.decoding import Decoding, judged
from pipelines.evaluation.records import Record, Records, Verdict, metrics
from pipelines.rewards.context import RewardContext

if TYPE_CHECKING:
    from pipelines.models.load import LoadedModel
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

    until: list[Annotated[str, Field(min_length=1)]] | None = None
    """Texts that end a completion, and are not judged with it (null = what suits the benchmark)."""


OF_COMPLETIONS = ("samples", "temperature", "max_tokens", "until")
"""Keys that say how completions are decoded: nothing to a benchmark that decodes none."""


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
    threads: ClassVar[int] = 1
    """Verdicts asked for at a time; more than one where a verdict waits for other processes."""
    reads: tuple[str, ...] = ()
    """What of the configuration decides its verdicts, as `section` or `section.key`: part of the score's key."""

    def __init__(self, config: Mapping[str, Any] | None = None) -> None:
        self.settings = self.Config.model_validate(dict(config or {}))

    @abstractmethod
    def items(self, sources: Sources) -> Sequence[Prompt]:
        """Every prompt of the benchmark, in an order that never changes; `limit` is applied later."""

    def verdict(self, context: RewardContext) -> Verdict:
        """The verdict on one completion; the context carries its row: reference, test cases, meta."""
        raise NotImplementedError(f"{type(self).__name__} has neither `verdict` nor `measure`")

    def verdicts(self, contexts: Sequence[RewardContext]) -> list[Verdict]:
        """The verdicts on a batch of completions, for what judges them together."""
        with ThreadPoolExecutor(self.threads) as pool:
            return list(pool.map(self.verdict, contexts))

    def measure(self, loaded: LoadedModel, prompts: Sequence[Prompt], decoding: Decoding) -> Iterator[list[Record]]:
        """The records of these prompts in their order, those of some items at a time.

        The usual way decodes completions and asks for their verdicts. What reads the model in another way overrides
        this; each of its records has an `item`, the prompt's index, and `correct` or a `score` that grows as it gets
        better.
        """
        return judged(loaded, prompts, decoding, self.verdicts, stops=self.stops)

    @property
    def decodes(self) -> bool:
        """Whether completions are decoded; the keys of OF_COMPLETIONS are refused where they are not."""
        return True

    @property
    def stops(self) -> Sequence[str]:
        """Texts that end a completion: those of the settings."""
        return self.settings.until or ()

    def metrics(self, records: Records) -> dict[str, Any]:
        """What the records reduce to; override it to add numbers of your own, with names of your own."""
        return metrics(records)

    def conditions(self, config: ExperimentConfig) -> dict[str, Any]:  # noqa: ARG002 - most depend on nothing
        """What of this machine a score depends on, recorded with it: how programs are isolated, say."""
        return {}

    def files(self) -> dict[str, Path]:
        """Files that decide what the items are, by name; their content is part of the cached score's key.

        None: the items are the run's validation rows.
        """
        return {}
