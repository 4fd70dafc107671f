"""The policy as an update sees it: model, value head, and the distribution that completions were sampled from."""

from dataclasses import dataclass

import mlx.core as mx
from mlx import nn

from pipelines import backend
from pipelines.models.layers import LayerStack
from pipelines.models.leaves import leaves
from pipelines.models.logprobs import Adjust, Scored, SplitModel, Spots, score, split_head


@dataclass(frozen=True)
class Policy:
    """A model with its parts; `value_head` `[.., H] -> [.., 1]` where the algorithm uses values."""

    model: nn.Module
    split: SplitModel
    stack: LayerStack
    temperature: float
    value_head: nn.Module | None = None
    entropy_gradient: bool = False

    @classmethod
    def of(
        cls, model: nn.Module, temperature: float, *, entropy_gradient: bool = False, checkpointing: bool = False
    ) -> "Policy":
        """Take a model apart."""
        split = split_head(model)
        stack = LayerStack(model, split, checkpointing=checkpointing)
        return cls(model, split, stack, temperature, None, entropy_gradient)

    def trained(self, names: frozenset[str]) -> dict[str, mx.array]:
        """The trainable leaves of the model among the named ones."""
        own = leaves(self.model.trainable_parameters())
        return {name: leaf for name, leaf in own.items() if name in names}

    def score(self, hidden: mx.array, at: Spots, adjust: Adjust | None) -> Scored:
        """Log-probabilities and entropies of tokens, given the last hidden states."""
        return score(self.split, hidden, at, self.temperature, adjust=adjust, entropy_gradient=self.entropy_gradient)

    def score_still(self, hidden: mx.array, at: Spots, adjust: Adjust | None) -> Scored:
        """`score` without a gradient, to the bit what an update finds for the same states."""
        if not self.stack.chains:
            return self.score(hidden, at, adjust)
        states = hidden.reshape(-1, hidden.shape[-1])[at.states]
        scores = self.stack.head.score(states, at, self.temperature, adjust, backend.Turns())
        return Scored(at.spread(scores.logprobs), at.spread(scores.entropies))

    def values(self, hidden: mx.array, at: Spots) -> mx.array | None:
        """What the value head expects before each token, float32 `[N, C]`."""
        if self.value_head is None:
            return None
        states = hidden.reshape(-1, hidden.shape[-1])[at.states].astype(mx.float32)
        return at.spread(self.value_head(states)[:, 0])
