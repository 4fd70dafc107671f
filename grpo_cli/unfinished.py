"""The one list of commands that are registered but not built yet; each says so and exits with 2."""

from collections.abc import Callable

import typer

from grpo_cli.output import error

UNFINISHED = {
    "report": (
        "Write one self-contained HTML file about one or more runs.",
        "until then, metrics.jsonl and samples.jsonl in the run's output directory hold everything it would draw",
    ),
    "export": (
        "Fuse adapters and write a directory that mlx-lm loads.",
        "until then, `mlx_lm.fuse --model BASE --adapter-path CHECKPOINT --save-path DIR` fuses a LoRA checkpoint",
    ),
    "serve": (
        "Serve a checkpoint through an OpenAI-compatible API.",
        "until then, `mlx_lm.server --model CHECKPOINT` serves one (LoRA: --model BASE --adapter-path CHECKPOINT)",
    ),
}
"""Command: (help line, what to do instead today)."""


def placeholder(name: str) -> Callable[[typer.Context], None]:
    """A command function that refuses honestly, whatever it is given."""
    help_line, instead = UNFINISHED[name]

    def command(_: typer.Context) -> None:
        error(f"`grpo {name}` is not built yet", instead)
        raise typer.Exit(2)

    command.__doc__ = f"{help_line}\n\nNot built yet; {instead}."
    return command
