"""Options that several commands share: one name, one spelling, one help line for each."""

from pathlib import Path
from typing import Annotated

import typer

COMMON = "Common options"
CACHE = "Cache options"


ConfigFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE",
        help="A configuration file; repeat it and later files win. Without it: config.yaml, if there is one.",
        rich_help_panel=COMMON,
        show_default=False,
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        "-s",
        metavar="KEY=VALUE",
        help="Set one value, such as trainer.learning_rate=1e-5; repeatable, the value is read as YAML.",
        rich_help_panel=COMMON,
        show_default=False,
    ),
]
Json = Annotated[
    bool, typer.Option("--json", help="Print data as JSON, one object a line, on stdout.", rich_help_panel=COMMON)
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Only data, warnings and errors.", rich_help_panel=COMMON)]
Verbose = Annotated[
    int,
    typer.Option(
        "--verbose",
        "-v",
        count=True,
        metavar="",
        help="Say more; -vv also shows the traceback of an error.",
        rich_help_panel=COMMON,
        show_default=False,
    ),
]

Force = Annotated[bool, typer.Option("--force", help="Do the work again although it is cached.", rich_help_panel=CACHE)]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Show what would be done, and do none of it.", rich_help_panel=CACHE)
]
Explain = Annotated[
    bool, typer.Option("--explain", help="Say why the stage runs or is reused, and stop.", rich_help_panel=CACHE)
]
Verify = Annotated[
    bool,
    typer.Option("--verify", help="Check the digest of every cached file, not only its size.", rich_help_panel=CACHE),
]

Check = Annotated[bool, typer.Option("--check", help="Exit non-zero if something is found.")]
Checkpoint = Annotated[
    Path | None,
    typer.Option(
        "--checkpoint", metavar="DIR", help="A checkpoint directory, or base, best or last.", show_default=False
    ),
]
Benchmarks = Annotated[
    list[str] | None,
    typer.Option(
        "--benchmark", metavar="NAME", help="An evaluator; repeatable, also space separated.", show_default=False
    ),
]
MoreBenchmarks = Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", hidden=True, show_default=False)]
"""What follows `--benchmark a` without an option of its own: the b and c of `--benchmark a b c`."""


def benchmark_names(named: list[str] | None, more: list[str] | None) -> list[str]:
    """Names in the order given, each once: `--benchmark a b`, `--benchmark a --benchmark b`, `--benchmark "a b"`."""
    words = " ".join([*(named or []), *(more or [])]).replace(",", " ").split()
    return list(dict.fromkeys(words))
