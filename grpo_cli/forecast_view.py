"""What a run would take of memory and time, as lines: for `train --dry-run` and `train --probe-memory`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

HELD = ("weights", "reference", "optimizer")
PHASES = {"rollouts": "rollouts", "gradients": "gradients", "step": "optimizer step"}
"""Of an update, in their order: the name in the record, and for people."""


def memory_lines(found: Mapping[str, Any]) -> list[str]:
    """The estimate, and what it is made of; or why there is none."""
    if "unknown" in found:
        return [f"memory  not known: {found['unknown']}"]
    held = [f"{name} {_size(found[f'{name}_gb'])}" for name in HELD if found[f"{name}_gb"]]
    phases = [f"{label} {_size(found[f'{name}_gb'])}" for name, label in PHASES.items() if found[f"{name}_gb"]]
    rows = f"prompts of {found['prompt_tokens']} tokens, completions of {found['completion_tokens']}"
    of, cost = f"of {_size(found['available_gb'])}", f"estimated from shapes in {found['seconds']:.1f} s"
    return [
        f"memory  {_size(found['peak_gb'])} at the most, {of}; {cost}",
        f"  all the time {', '.join(held)}; on top of it, one after the other, {', '.join(phases)}",
        f"  longest rows: {rows} ({found['rows_of']})",
    ]


def measured_lines(found: Mapping[str, Any]) -> list[str]:
    """What the longest update took, where it was made."""
    if "measured" not in found:
        return []
    peak, estimated = found["measured"]["peak_gb"], found["memory"].get("peak_gb")
    beside = "" if estimated is None else f"; the estimate is {estimated / peak:.2f} of it"
    return [f"measured  {_size(peak)} at the most{beside}"]


def time_lines(found: Mapping[str, Any]) -> list[str]:
    """Seconds an update and what is left, and where that is from; or why it is not known."""
    from pipelines.monitoring.progress import clock_text

    if "unknown" in found:
        return [f"time  not known: {found['unknown']}"]
    left = f"{clock_text(found['left_seconds'])} for the {found['left_updates']} updates to come"
    return [f"time  {found['update_seconds']:.2g} s an update, {left}: {found['measured_by']}"]


def _size(gb: float) -> str:
    return f"{gb:.3g} GB" if gb >= 1 else f"{1000 * gb:.3g} MB"
