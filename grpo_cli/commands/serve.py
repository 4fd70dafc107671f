"""`grpo serve`: a checkpoint behind an OpenAI-compatible API."""

from typing import Annotated

import typer

from grpo_cli.options import Checkpoint, ConfigFiles, Json, Overrides, Quiet, Verbose
from grpo_cli.output import Output


def serve(
    config: ConfigFiles = None,
    overrides: Overrides = None,
    checkpoint: Checkpoint = None,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Where to listen; others can reach only some.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 finds a free one.")] = 8080,
    temperature: Annotated[float, typer.Option(min=0, help="For requests that give none; 0 is greedy.")] = 0.0,
    max_tokens: Annotated[int, typer.Option(min=1, help="For requests that give none.")] = 512,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Serve a checkpoint through an OpenAI-compatible API.

    --checkpoint DIR, or the newest checkpoint of the run, or the starting model (--checkpoint base). Ctrl-C ends it.
    """
    from pipelines import serve as service
    from pipelines.config import load
    from pipelines.evaluation.targets import target

    out = Output(json, quiet, verbose)
    loaded = load(config, overrides).config
    model = target(loaded, checkpoint)
    out.note(f"serve: {model.describe(loaded)}")
    request = service.Request(host, port, temperature, max_tokens)
    service.run(
        loaded,
        request,
        target=model,
        ready=lambda url: out.data({"url": url, "model": model.name}, human=lambda: out.data(url)),
    )
