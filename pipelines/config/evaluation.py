"""`evaluation`: the list of benchmarks that `grpo eval` runs when none is named."""

from typing import Any

from pydantic import Field

from pipelines.config.section import Section


class EvaluationConfig(Section):
    """One benchmark: its name and own settings."""

    name: str = Field(min_length=1)
    """Name the evaluator is registered under."""

    config: dict[str, Any] = Field(default_factory=dict[str, Any])
    """Settings of the evaluator, checked by the evaluator itself."""
