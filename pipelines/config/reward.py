"""`rewards`: the list of named rewards whose weighted mean scores a completion."""

from typing import Any

from pydantic import Field

from pipelines.config.section import Section


class RewardConfig(Section):
    """One reward: its name, weight and own settings."""

    name: str = Field(min_length=1)
    """Name the reward is registered under."""

    weight: float = Field(default=1.0, ge=0)
    """Weight of the reward in the mean over those that did not abstain."""

    config: dict[str, Any] = Field(default_factory=dict[str, Any])
    """Settings of the reward, checked by the reward itself."""
