"""What steers the rows that are being decoded: their tags, their thinking, the tokens they must not repeat."""

from collections.abc import Sequence

import mlx.core as mx
import numpy as np

from pipelines.config import GenerationConfig
from pipelines.generation.controls import Controls, Steering
from pipelines.generation.distribution import last_tokens


class Guide:
    """The state of N rows beside their caches; without controls and penalty there is none, and nothing is computed."""

    def __init__(
        self,
        sampling: GenerationConfig,
        controls: Controls | None,
        prompts: Sequence[np.ndarray],
        preopened: np.ndarray,
    ) -> None:
        self.controls = controls
        self.state = None if controls is None else controls.start(preopened)
        penalised = sampling.repetition_penalty not in (None, 1)
        self.recent = mx.array(np.stack([last_tokens(prompt) for prompt in prompts])) if penalised else None

    def steer(self) -> Steering:
        """What is done to each row's next token."""
        return Steering() if self.controls is None or self.state is None else self.controls.steer(self.state)

    def advance(self, tokens: mx.array) -> mx.array | None:
        """Take note of a token `[N]` of each row; which of them completed a stop text, bool `[N]`."""
        if self.recent is not None:
            self.recent = mx.concatenate([self.recent[:, 1:], tokens[:, None]], axis=1)
        if self.controls is None or self.state is None:
            return None
        self.state, stopped = self.controls.advance(self.state, tokens)
        mx.async_eval(self.state)
        return stopped

    def extend(self, other: "Guide") -> None:
        """Take in the rows of another, which steers by the same rules."""
        if self.state is not None and other.state is not None:
            self.state = self.state.extended(other.state)
        if self.recent is not None and other.recent is not None:
            self.recent = mx.concatenate([self.recent, other.recent])

    def select(self, rows: mx.array) -> None:
        """Keep some of the rows."""
        self.state = None if self.state is None else self.state.select(rows)
        self.recent = None if self.recent is None else self.recent[rows]
