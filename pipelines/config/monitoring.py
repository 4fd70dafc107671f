"""`monitoring`: what a run writes down, and for whom."""

from pydantic import Field

from pipelines.config.section import Section


class MonitoringConfig(Section):
    """Logs, samples and trackers. `metrics.jsonl` and `samples.jsonl` are always written."""

    log_every: int = Field(default=1, ge=1)
    """Updates between two progress lines."""

    log_samples_every: int = Field(default=10, ge=0)
    """Updates between two entries in samples.jsonl (0 = never)."""

    max_logged_samples: int = Field(default=16, ge=0)
    """Most completions written per entry."""

    log_prompts: bool = True
    """Write prompts and completions into samples.jsonl; false leaves only their numbers."""

    use_wandb: bool = False
    """Send metrics to Weights & Biases (extra wandb); nothing leaves the machine unless this is on."""

    wandb_project: str = Field(default="grpo", min_length=1)
    """Project of the Weights & Biases run."""

    use_tensorboard: bool = False
    """Write metrics for TensorBoard into the output directory (extra tensorboard)."""
