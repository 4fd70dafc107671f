"""`grpo gc`: what the stage store and runs that were set aside could free, and with --yes freeing it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from grpo_cli.options import ConfigFiles, Json, Overrides, Quiet, Verbose
from grpo_cli.output import Output, count

if TYPE_CHECKING:
    from pipelines.stages.gc import Reclaimable

UNITS = (("day", 86400.0), ("hour", 3600.0), ("minute", 60.0))


def gc(
    config: ConfigFiles = None,
    overrides: Overrides = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Free what is listed, but for earlier runs.")] = False,
    old_runs: Annotated[
        bool, typer.Option("--old-runs", help="With --yes: also delete earlier runs, <output_dir>.old-<n>, for good.")
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """List what the cache could free; free it with --yes.

    Listed are entries that this configuration would not find again, and what interrupted stages left behind: all of it
    can be made again. Runs that --fresh or --force set aside cannot; they are listed, and go only with --old-runs.
    """
    from pipelines.config.loader import load
    from pipelines.stages import gc as store
    from pipelines.status import unused

    out = Output(json, quiet, verbose)
    settings = load(config, overrides).config
    items = store.reclaimable(settings.paths.stages, unused(settings)) + store.old_runs(settings.trainer.output_dir)
    meant = [item for item in items if old_runs or item.kind != "old run"]
    freed = [item for item in meant if yes and store.free(item)]
    if json:
        out.data([{**_record(item), "freed": item in freed} for item in items])
    elif items:
        rows = [[item.stage, item.path, size(item.size_bytes), age(item), "; ".join(item.reasons)] for item in items]
        out.table("", ["stage", "path", "size", "age", "why nobody needs it"], rows)
    _sum_up(out, items, meant, freed if yes else None)


def _sum_up(out: Output, items: list[Reclaimable], meant: list[Reclaimable], freed: list[Reclaimable] | None) -> None:
    """One line on what was or could be freed, and one on earlier runs that stay."""
    if not meant:
        out.note("nothing to free")
    elif freed is None:
        out.note(f"{_total(meant)} in {count(len(meant), 'place')} could be freed; --yes frees them")
    else:
        out.note(f"freed {_total(freed)} in {len(freed)} of {count(len(meant), 'place')}")
    kept = [item for item in items if item not in meant]
    if kept:
        out.note(f"{_total(kept)} in {count(len(kept), 'earlier run')}: kept, unless you ask with --old-runs")


def _total(items: list[Reclaimable]) -> str:
    return size(sum(item.size_bytes for item in items))


def _record(item: Reclaimable) -> dict[str, Any]:
    return {
        "kind": item.kind,
        "stage": item.stage,
        "path": item.path,
        "size_bytes": item.size_bytes,
        "age_seconds": round(item.age_seconds),
        "reasons": item.reasons,
    }


def age(item: Reclaimable) -> str:
    """How long ago something was last written, in the largest unit that fits: 3 days, 1 hour, 12 minutes."""
    for unit, seconds in UNITS:
        if item.age_seconds >= seconds:
            return count(int(item.age_seconds // seconds), unit)
    return "now"


def size(size_bytes: int) -> str:
    """Bytes as people read them: 512 B, 1.5 KB, 20.0 MB, in powers of 1000."""
    amount, unit = float(size_bytes), "B"
    for larger in ("KB", "MB", "GB", "TB"):
        if amount < 1000:
            break
        amount, unit = amount / 1000, larger
    return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
