"""`checkpointing`: when a run is saved, and what is kept."""

from typing import Literal

from pydantic import Field

from pipelines.config.section import Directory, Section


class CheckpointingConfig(Section):
    """Checkpoints: where, how often, how many."""

    checkpoint_dir: Directory = "checkpoints"
    """Directory of the checkpoints, relative to trainer.output_dir."""

    save_every: int = Field(default=50, ge=0)
    """Updates between checkpoints (0 = only at the end)."""

    keep_last_n: int = Field(default=3, ge=1)
    """Number of newest checkpoints to keep; the best one is kept besides."""

    save_optimizer_state: bool = True
    """Save the optimizer too, so that a resumed run continues bit for bit."""

    best_metric: str = Field(default="reward", min_length=1)
    """Metric that decides which checkpoint is the best, such as eval/exact_match/accuracy.
    Not given, it is the first benchmark's accuracy where the run is evaluated on the way (trainer.eval_every)."""

    best_mode: Literal["max", "min"] = "max"
    """Whether the best value of best_metric is its largest or its smallest."""

    verify: bool = True
    """Check the digest of every file when a checkpoint is read."""
