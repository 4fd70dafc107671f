"""What an algorithm is: which advantages, and which loss, over the rows of one update.

An algorithm is one short file that registers itself; the trainer does not know which one runs.
"""

from typing import ClassVar, NamedTuple, Protocol

import mlx.core as mx

from pipelines.algorithms.advantages import Advantages
from pipelines.algorithms.losses import LossOutput
from pipelines.config import TrainerConfig
from pipelines.errors import ConfigError


class Batch(NamedTuple):
    """One micro-batch of n rows; every `[n, C]` array is padded on the right, `mask` says where completions are."""

    tokens: mx.array  # [n, T] int32, prompt and completion
    starts: mx.array  # [n] int32, prompt lengths
    completions: mx.array  # [n, C] int32
    mask: mx.array  # [n, C] bool
    advantages: mx.array  # [n] float32
    sampler_logprobs: mx.array | None  # [n, C] float32, None without rollouts
    old_logprobs: mx.array | None  # [n, C] float32, None when on-policy
    ref_logprobs: mx.array | None  # [n, C] float32, None without a reference


class Totals(NamedTuple):
    """Denominators of the whole update, so that micro-batch losses add up to the loss of the update."""

    items: int
    """Active completion tokens."""
    rows: int
    """Rows."""
    budget_tokens: int
    """Longest completion allowed."""


class Algorithm(Protocol):
    """What the trainer asks of an algorithm."""

    uses_rollouts: bool
    """True: completions are sampled and rewarded. False: the references of the data set are the completions."""

    def __init__(self, config: TrainerConfig) -> None: ...

    def advantages(self, rewards: mx.array, weights: mx.array, group_size: int) -> Advantages:
        """Rewards `[N, K]` (NaN = abstained) and their weights `[K]` to advantages `[N]`."""
        ...

    def loss(self, logprobs: mx.array, entropies: mx.array, batch: Batch, totals: Totals) -> LossOutput:
        """The micro-batch's share of the update's loss; logprobs and entropies `[n, C]` float32."""
        ...


class AlgorithmRegistry:
    """Algorithms by the name that `trainer.algorithm` uses."""

    _known: ClassVar[dict[str, type[Algorithm]]] = {}

    @classmethod
    def register(cls, name: str):
        """Class decorator: make an algorithm known as `name`."""

        def add(algorithm: type) -> type:
            cls._known[name] = algorithm
            return algorithm

        return add

    @classmethod
    def create(cls, config: TrainerConfig) -> Algorithm:
        """The algorithm that `trainer.algorithm` names; ConfigError lists the known ones otherwise."""
        if config.algorithm not in cls._known:
            raise ConfigError(
                f"trainer.algorithm: {config.algorithm!r} is not registered",
                hint=f"known are {', '.join(sorted(cls._known))}; a file under `plugins` can add one",
            )
        return cls._known[config.algorithm](config)
