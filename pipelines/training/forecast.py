"""What a run would take of memory and time, for people who are about to start it. Plain JSON."""

from pathlib import Path
from statistics import median
from typing import Any

from pipelines import backend
from pipelines.config import ExperimentConfig
from pipelines.monitoring.jsonl import records
from pipelines.tokens.dataset import TokenDataset
from pipelines.training import algorithms
from pipelines.training.estimate import estimate
from pipelines.training.worst import worst

LAST_UPDATES = 50
"""The updates whose time is taken for that of the next ones."""


def memory(config: ExperimentConfig, tokens: Path | None) -> dict[str, Any]:
    """The estimate in GB of 1e9 bytes; `tokens` are the arrays that preprocess wrote, if it has."""
    backend.prepare()
    dataset = None if tokens is None else TokenDataset(tokens, "train")
    rows = worst(config, dataset, algorithms.create(config.trainer))
    try:
        found = estimate(config, rows)
    except ValueError as error:  # of mx.export_function
        return {"unknown": f"the model's computation cannot be read: {error}"}
    parts = ("peak", "weights", "reference", "optimizer", "rollouts", "gradients", "step")
    shown = rows.sequences if rows.sequences is not None else rows.references
    completions = [] if shown is None else shown.completions
    return {f"{name}_gb": getattr(found, name) / 1e9 for name in parts} | {
        "available_gb": backend.memory_bytes() / 1e9,
        "seconds": found.seconds,
        "prompt_tokens": max(map(len, rows.prompts)),
        "completion_tokens": max(map(len, completions), default=0),
        "rows_of": "the longest in the data" if rows.seen else "the configuration's limits: preprocess has not run",
    }


def duration(config: ExperimentConfig, metrics: Path) -> dict[str, Any]:
    """Seconds of the updates to come, by the median of the last ones of the same run; `unknown` before any."""
    found = [record for record in records(metrics) if "time/step_seconds" in record] if metrics.is_file() else []
    if not found:
        return {"unknown": "no update of this run has been made; --probe-memory makes and times the longest"}
    last = found[-LAST_UPDATES:]
    left = max(0, config.trainer.num_training_steps - found[-1]["step"])
    seconds = median(record["time/step_seconds"] for record in last)
    return _duration(seconds, left, f"the median of {len(last)} updates in {metrics}")


def longest_duration(config: ExperimentConfig, update_seconds: float) -> dict[str, Any]:
    """The same for a whole run whose updates all take as long as the longest."""
    updates = config.trainer.num_training_steps
    return _duration(update_seconds, updates, "that of the longest update, as if all were; rewards are left out")


def _duration(seconds: float, left: int, measured_by: str) -> dict[str, Any]:
    return {
        "update_seconds": seconds,
        "left_updates": left,
        "left_seconds": left * seconds,
        "measured_by": measured_by,
    }
