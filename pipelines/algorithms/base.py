"""What an algorithm is: which advantages, and which loss, over the rows of one update.

An algorithm is one short file that registers itself; the trainer does not know which one runs.
"""

from typing import Any, ClassVar, NamedTuple

import mlx.core as mx

from pipelines.algorithms.advantages import Advantages, compute_advantages
from pipelines.algorithms.loss_metrics import Metrics
from pipelines.algorithms.losses import LossOutput
from pipelines.config import TrainerConfig
from pipelines.errors import ConfigError
from pipelines.plugins import refuse_taken


class Batch(NamedTuple):
    """One micro-batch of n rows; every `[n, C]` array is padded on the right, `mask` says where the loss looks."""

    tokens: mx.array  # [n, T] int32, prompt and completion but for its last token, which is only predicted
    starts: mx.array  # [n] int32, prompt lengths
    completions: mx.array  # [n, C] int32
    mask: mx.array  # [n, C] bool; rows that were silenced and tokens that were forced are out
    thinking: mx.array  # [n, C] bool, the thinking region of the completion
    advantages: mx.array  # [n] float32, or [n, C] where the algorithm credits tokens
    sampler_logprobs: mx.array | None = None  # [n, C] float32, None without rollouts
    drawn_logprobs: mx.array | None = None  # [n, C], after top-p and the like; only where the loss corrects for them
    old_logprobs: mx.array | None = None  # [n, C], None when on-policy
    ref_logprobs: mx.array | None = None  # [n, C], None without a reference
    values: mx.array | None = None  # [n, C], what the value head says now; carries its gradient
    old_values: mx.array | None = None  # [n, C], what it said before the update
    returns: mx.array | None = None  # [n, C], what it should say
    prefix: Any = (
        None  # a `models.prefix.Prefix`: prompts without their last tokens, where `tokens` begin; starts are 1
    )
    weights: mx.array | None = None  # [n, C] factors of the terms, which no denominator sees; None: 1 everywhere


class Totals(NamedTuple):
    """Denominators of the whole update, so that micro-batch losses add up to the loss of the update."""

    items: int
    """Active completion tokens."""
    rows: int
    """Rows."""
    budget_tokens: int
    """Longest completion allowed."""
    entropy_threshold: mx.array | None = None
    """Of the whole update, where `trainer.loss.top_entropy_quantile` is below 1."""


class Recorded(NamedTuple):
    """All N rows of an update as they were before it, padded on the right: what a learned baseline works from."""

    rewards: mx.array  # [N] float32, what `advantages` gave each completion
    mask: mx.array  # [N, C] bool
    logprobs: mx.array  # [N, C] float32, of the policy
    ref_logprobs: mx.array | None  # [N, C] float32, None without a reference
    values: mx.array  # [N, C] float32, of the value head


class TokenAdvantages(NamedTuple):
    """Advantages of single tokens, and what the value head should have said: `[N, C]` float32, 0 outside the mask."""

    values: mx.array
    returns: mx.array
    metrics: Metrics | None = None
    """What there is to log about them, scalars."""


class BaseAlgorithm:
    """What the trainer asks of an algorithm. A subclass has to give the loss; the rest has the answers of GRPO."""

    uses_rollouts: ClassVar[bool] = True
    """True: completions are sampled and rewarded. False: the references of the data set are the completions."""

    uses_values: ClassVar[bool] = False
    """Whether a value head is trained beside the model; `token_advantages` is called then."""

    compares_completions: ClassVar[bool] = True
    """Whether a group whose rewards are all equal teaches nothing, so that such groups are worth counting."""

    def __init__(self, config: TrainerConfig) -> None:
        self.config = config

    def advantages(self, rewards: mx.array, weights: mx.array, group_size: int) -> Advantages:
        """Rewards `[N, K]` (NaN = abstained) and their weights `[K]` to one number a completion `[N]`."""
        return compute_advantages(rewards, group_size, self.config.advantage, weights=weights)

    def token_advantages(self, recorded: Recorded) -> TokenAdvantages:
        """Per-token advantages of the whole update, from the values before it."""
        raise NotImplementedError(f"{type(self).__name__} uses values and does not say what to make of them")

    def loss(self, logprobs: mx.array, entropies: mx.array, batch: Batch, totals: Totals) -> LossOutput:
        """The micro-batch's share of the update's loss; logprobs and entropies `[n, C]` float32.

        Where two regions are trained apart this is called once a region, with the other region's log-probabilities
        as constants: their gradients then add up to that of one call.
        """
        raise NotImplementedError


class AlgorithmRegistry:
    """Algorithms by the name that `trainer.algorithm` uses."""

    _known: ClassVar[dict[str, type[BaseAlgorithm]]] = {}

    @classmethod
    def register(cls, name: str):
        """Class decorator. Registering the same class again is fine; another class under a taken name is not."""

        def add(algorithm: type) -> type:
            refuse_taken(name, cls._known.get(name), algorithm, "algorithms")
            cls._known[name] = algorithm
            return algorithm

        return add

    @classmethod
    def create(cls, config: TrainerConfig) -> BaseAlgorithm:
        """The algorithm that `trainer.algorithm` names; ConfigError lists the known ones otherwise."""
        if config.algorithm not in cls._known:
            raise ConfigError(
                f"trainer.algorithm: {config.algorithm!r} is not registered",
                hint=f"known are {', '.join(sorted(cls._known))}; a file under `plugins` can add one",
            )
        return cls._known[config.algorithm](config)
