"""Completions as a person looks at them: prompt, dimmed thinking, bold answer, and one line of rewards and lengths."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import typer

from grpo_cli.output import Output, cell

Record = Mapping[str, Any]
"""A line of the sample stage's `samples.jsonl`."""

SIDE_BY_SIDE_COLUMNS = 100
"""A terminal narrower than this shows two models one below the other."""


def completion_text(record: Record, *, prompt: bool = True) -> str:
    """One completion, whatever it holds made visible, with its reward and length below."""
    from pipelines.monitoring.visible import visible

    heading = f"prompt  {visible(record['prompt'])}" + (f"   (sample {record['sample']})" if record["sample"] else "")
    thinking, answer = (visible(part) for part in _parts(record))
    if is_coloured():
        thinking, answer = typer.style(thinking, dim=True), typer.style(answer, bold=True)
    return "\n".join([*([heading] if prompt else []), f"{thinking}{answer}", f"  {summary_line(record)}", ""])


def summary_line(record: Record) -> str:
    """The reward with its components, how the completion ended, and its lengths."""
    parts = ", ".join(f"{name} {cell(value)}" for name, value in record["rewards"].items() if value is not None)
    reward = "no reward" if record["reward"] is None else f"reward {cell(record['reward'])} ({parts})"
    ended = "cut off" if record["finish_reason"] == "length" else "ended"
    return f"{reward}; {ended} after {record['tokens']} tokens, {record['thinking_tokens']} of them thinking"


def show_comparison(out: Output, names: Sequence[str], records: Sequence[Record]) -> None:
    """The same prompt's completions by several models: beside each other on a wide terminal, else one by one."""
    from pipelines.monitoring.visible import visible

    out.data(f"prompt  {visible(records[0]['prompt'])}")
    if sys.stdout.isatty() and shutil.get_terminal_size().columns >= SIDE_BY_SIDE_COLUMNS:
        rows = ([shown(record) for record in records] for shown in (_rich_completion, summary_line))
        out.table("", names, rows)
        return
    for name, record in zip(names, records, strict=True):
        out.data(f"{name}:\n{completion_text(record, prompt=False)}")


def is_coloured() -> bool:
    """Whether stdout is a terminal that wants colours."""
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ


def _parts(record: Record) -> tuple[str, str]:
    """What stands before the answer, tags included, and the answer."""
    text, answer = record["completion"].rstrip(), record["answer"]
    return (text.removesuffix(answer) if text.endswith(answer) else f"{record['thinking']}\n"), answer


def _rich_completion(record: Record) -> Any:
    from rich.text import Text

    from pipelines.monitoring.visible import visible

    thinking, answer = (visible(part) for part in _parts(record))
    return Text.assemble((thinking, "dim"), (answer, "bold"))
