"""What every reward is: a class made from its configuration that turns a context into a number.

A built-in reward declares its keys in a nested `Config`; a reward of yours may, or may take any mapping.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from pipelines.config import Section
from pipelines.rewards.context import RewardContext

RewardResult = float | dict[str, Any] | None
"""A number; or a dict whose "reward" is the number and whose other entries are shown as reasons; or None: abstains."""


class BaseReward(ABC):
    """One rule. `compute` must depend on the context alone, so that order and workers change nothing."""

    Config: ClassVar[type[Section] | None] = None
    """The keys of `rewards[i].config`, checked before the reward is made. None: any mapping."""

    time_limit_seconds: float = 10.0
    """What one completion may take by the clock, where workers score: then the worker is killed, and that is a failure.
    A class or an instance may have another."""

    quick: ClassVar[bool] = False
    """A promise that `compute` ends within milliseconds for any text: a small batch is then scored without a worker."""

    def __init__(self, config: Mapping[str, Any] | None = None) -> None:
        self.config: dict[str, Any] = dict(config or {})

    @abstractmethod
    def compute(self, context: RewardContext) -> RewardResult:
        """The worth of one completion. None abstains: the other rewards then carry the row."""

    def validate_inputs(self, context: RewardContext) -> bool:
        """True if there is text to score. Raises TypeError where the context itself is not usable."""
        text: object = getattr(context, "generated_text", None)
        if not isinstance(text, str):
            raise TypeError(f"a reward needs a RewardContext with a text, not {type(context).__name__}")
        return bool(text.strip())
