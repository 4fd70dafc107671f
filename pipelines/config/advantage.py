"""`trainer.advantage`: what a completion's reward is compared with, and in which unit."""

from typing import Literal

from pydantic import Field

from pipelines.config.section import Section


class AdvantageConfig(Section):
    """The advantage of each completion over its baseline."""

    baseline: Literal["auto", "group", "batch", "leave_one_out"] = "auto"
    """What a reward is compared with; auto = group, or batch where a prompt has one completion.
    group = mean of the prompt's completions; batch = mean of the whole update; leave_one_out = mean of the others."""

    scale: Literal["group", "batch", "none"] = "group"
    """Standard deviation that divides the advantages; none leaves them in reward units."""

    epsilon: float = Field(default=1e-4, gt=0)
    """Added to the standard deviation, so that a nearly constant group is not blown up."""

    drop_zero_variance_groups: bool = True
    """Leave groups whose rewards are all equal out of the update. They enter neither loss, nor KL, nor token count."""

    refill: int = Field(default=0, ge=0)
    """Rounds of fresh prompts that may replace dropped groups in an update (0 = off)."""

    aggregation: Literal["sum_then_normalize", "normalize_then_sum"] = "sum_then_normalize"
    """Whether rewards are summed before they are normalised, or each one first."""
