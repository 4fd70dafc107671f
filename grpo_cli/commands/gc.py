"""`grpo gc`: what the stage store could free, and with --yes freeing it."""

from typing import Annotated

import typer

from grpo_cli.options import ConfigFiles, Json, Overrides, Quiet, Verbose
from grpo_cli.output import Output


def gc(
    config: ConfigFiles = None,
    overrides: Overrides = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Free what is listed.")] = False,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """List what the cache could free; free it with --yes.

    Listed are entries that this configuration would not find again, and what interrupted stages left behind.
    Everything in the store can be made again; training runs are never touched.
    """
    from pipelines.config.loader import load
    from pipelines.plan import unused
    from pipelines.stages.gc import free, reclaimable

    out = Output(json, quiet, verbose)
    settings = load(config, overrides).config
    items = reclaimable(settings.paths.stages, unused(settings))
    freed = [item for item in items if yes and free(item)]
    if json:
        out.data([{**vars(item), "freed": item in freed} for item in items])
    elif items:
        rows = [[item.stage, item.directory, size(item.size_bytes), "; ".join(item.reasons)] for item in items]
        out.table("", ["stage", "directory", "size", "why nobody needs it"], rows)
    total = size(sum(item.size_bytes for item in (freed if yes else items)))
    if yes:
        out.note(f"freed {total} in {len(freed)} of {len(items)} directories")
    else:
        out.note(f"{total} in {len(items)} directories could be freed" + ("; --yes frees them" if items else ""))


def size(size_bytes: int) -> str:
    """Bytes as people read them: 512 B, 1.5 KB, 20.0 MB, in powers of 1000."""
    amount, unit = float(size_bytes), "B"
    for larger in ("KB", "MB", "GB", "TB"):
        if amount < 1000:
            break
        amount, unit = amount / 1000, larger
    return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
