"""`trainer.lr_schedule_config`: the learning rate over optimizer steps, as mlx.optimizers names its schedules."""

from typing import Annotated, Literal

from pydantic import Field

from pipelines.config.section import Section


class LrScheduleConfig(Section):
    """A learning rate schedule, after an optional linear warm-up."""

    name: Literal["cosine_decay", "linear_schedule", "exponential_decay", "step_decay", "constant"]
    """The schedule: cosine_decay, linear_schedule, exponential_decay, step_decay or constant."""

    arguments: Annotated[tuple[int | float, ...], Field(strict=False)]
    """Arguments of the schedule; the first is the learning rate after the warm-up.
    cosine_decay [start, decay_steps, end]; linear_schedule [start, end, steps]; exponential_decay [start, factor];
    step_decay [start, factor, step_size]; constant [rate]."""

    warmup: int = Field(default=0, ge=0)
    """Optimizer steps over which the rate rises linearly before the schedule starts (0 = none)."""

    warmup_init: float | None = Field(default=None, ge=0)
    """Learning rate at the start of the warm-up (null = one tenth of the first argument)."""
