"""`grpo export`: a model directory, or adapters, that other programs load."""

from pathlib import Path
from typing import Annotated

import typer

from grpo_cli.options import Checkpoint, ConfigFiles, Json, Overrides, Quiet, Verbose
from grpo_cli.output import Output


def export(
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Where to write; new or empty.", show_default=False)
    ],
    config: ConfigFiles = None,
    overrides: Overrides = None,
    checkpoint: Checkpoint = None,
    adapter_only: Annotated[
        bool, typer.Option("--adapter-only", help="Only the adapters of a LoRA checkpoint, without the base.")
    ] = False,
    dtype: Annotated[
        str | None,
        typer.Option(metavar="TYPE", help="float16, bfloat16 or float32; as stored otherwise.", show_default=False),
    ] = None,
    quantize: Annotated[
        int | None, typer.Option(metavar="BITS", help="Quantise to 2, 3, 4, 5, 6 or 8 bits.", show_default=False)
    ] = None,
    group_size: Annotated[
        int, typer.Option(metavar="SIZE", help="Weights that share a scale when quantised: 32, 64 or 128.")
    ] = 64,
    gguf: Annotated[bool, typer.Option("--gguf", help="Also a GGUF file, where mlx-lm can write one.")] = False,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Write a model directory that others load, with a card.

    Adapters are fused into the base. Of --checkpoint DIR, or the newest checkpoint of the run, or of the starting model
    with --checkpoint base.
    """
    from grpo_cli.commands.gc import size
    from pipelines import export as stage
    from pipelines.config import load
    from pipelines.evaluation.targets import target

    out = Output(json, quiet, verbose)
    loaded = load(config, overrides).config
    model = target(loaded, checkpoint)
    out.note(f"export: {model.describe(loaded)}")
    request = stage.Request(adapter_only, dtype, quantize, group_size, gguf)
    found = stage.run(loaded, output, target=model, request=request)
    out.data(found, human=lambda: out.data(f"{found.directory}  {size(found.size_bytes)}  {found.form}"))
    out.note(f"  {', '.join(found.files)}")
