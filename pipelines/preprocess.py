"""The preprocess stage: rows become token arrays, once, with an account of every row that did not.

Nothing heavy is imported while the arrays are there already.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines import plan
from pipelines.config import ExperimentConfig
from pipelines.errors import DataError, GrpoError
from pipelines.files import at_home
from pipelines.hub import looking
from pipelines.rows import sources
from pipelines.rows.loaders.registry import loader_for
from pipelines.stages import store
from pipelines.stages.digest import DigestCache
from pipelines.stages.store import StageResult, StageState

if TYPE_CHECKING:
    from pipelines.rows.blocks import Tally
    from pipelines.rows.encode import EncoderSpec
    from pipelines.rows.fingerprints import Fingerprints

SPLITS = ("train", "val")

Progress = Callable[[str, int, float | None], None]
"""Called now and then with the source (train or val), its rows so far, and how much of it they are, from 0 to 1."""


@dataclass(frozen=True)
class Preview:
    """The first training prompt as the model will see it."""

    source: str
    text: str
    prompt_tokens: int
    completion_tokens: int
    preopened: bool


def run(
    config: ExperimentConfig,
    *,
    force: bool = False,
    verify: bool = False,
    export_train: Path | str | None = None,
    export_val: Path | str | None = None,
    progress: Progress | None = None,
) -> StageResult:
    """Tokenise the data set unless it is there; `export_*` are prefixes that also receive a split's files.

    DataError, and nothing written, for rows that cannot be used.
    """
    plan.refuse_no_directory("paths.stages", config.paths.stages)
    identity, directory = _place(config)
    result = store.run_stage(
        identity, directory, lambda place: _work(config, place, progress), force=force, verify=verify
    )
    for split, prefix in zip(SPLITS, (export_train, export_val), strict=True):
        if prefix is not None:
            from pipelines.tokens.export import export_split

            export_split(directory, split, at_home(prefix))
    return result


def state(config: ExperimentConfig, *, verify: bool = False) -> StageState:
    """What `run` would find; nothing is done, nothing is written."""
    return plan.look(config, "preprocess", lambda cache: _place(config, cache)[0], verify=verify)


@looking()
def preview(config: ExperimentConfig) -> Preview:
    """Render the first usable training row; reads no more than it must.

    NotHereError where that would have to be downloaded.
    """
    from pipelines.rows.encode import RowEncoder
    from pipelines.rows.records import Row
    from pipelines.rows.sources import ReadReport, split_of

    encoder = RowEncoder(_spec(config))
    chunks = encoder.loader.cut(encoder.loader.sources()["train"])
    for found in (row for chunk in chunks for row in encoder.usable_rows(chunk, ReadReport())):
        row, tokens = encoder.tokenised([found])[0]
        if split_of(row, "train", config.data) == "train":
            text = encoder.chat.render(row) if isinstance(found, Row) else encoder.chat.tokenizer.decode(tokens.prompt)
            return Preview(row.source, text, len(tokens.prompt), len(tokens.completion), tokens.preopened)
    raise DataError("there is no training row", hint="lower data.val_fraction")


def long_references(result: StageResult, most_tokens: int) -> dict[str, int]:
    """For each split the reference completions that have more tokens than may be generated."""
    from pipelines.tokens.dataset import TokenDataset
    from pipelines.tokens.lengths import longer_than

    return {split: longer_than(TokenDataset(result.directory, split), most_tokens) for split in SPLITS}


def _place(config: ExperimentConfig, cache: DigestCache | None = None) -> tuple[Any, Path]:
    sources.check_sources(loader_for(config.data, config.plugins))
    identity = plan.preprocess_identity(config, cache)
    return identity, plan.stage_directory(config, "preprocess", identity)


def _spec(config: ExperimentConfig) -> EncoderSpec:
    from pipelines.rows.encode import EncoderSpec

    tags = (config.generation.think_start_tag, config.generation.think_end_tag)
    return EncoderSpec(config.model.model_path, config.data, tags, config.plugins)


def _work(config: ExperimentConfig, directory: Path, progress: Progress | None) -> dict[str, Any]:
    try:
        return _write(config, directory, progress)
    except GrpoError:
        shutil.rmtree(directory)  # a refused data set leaves nothing behind
        raise


def _write(config: ExperimentConfig, directory: Path, progress: Progress | None) -> dict[str, Any]:
    from pipelines.rows.blocks import Tally, token_dtype
    from pipelines.rows.encode import encode_stream
    from pipelines.rows.fingerprints import Fingerprints
    from pipelines.tokens.dataset import SplitWriter

    loader = loader_for(config.data, config.plugins)
    read = loader.sources()
    reports = {origin: sources.ReadReport() for origin in read}
    tallies, seen = {split: Tally() for split in SPLITS}, Fingerprints()
    writers: dict[str, SplitWriter] = {}
    vocabulary = 0
    tasks = ((origin, chunk) for origin, path in read.items() for chunk in sources.told(loader.cut(path), loader))
    with ExitStack() as opened:
        for done in opened.enter_context(closing(encode_stream(tasks, _spec(config)))):
            if done.error is not None:
                raise done.error
            vocabulary = done.vocabulary
            for split in () if writers else SPLITS:
                writer = SplitWriter(directory, split, token_dtype(vocabulary))
                writers[split] = opened.enter_context(closing(writer))
            reports[done.origin].add(done.report)
            for split, block in done.blocks.items():
                writers[split].extend(block)
                tallies[split].add(block.tally)
                seen.add(split, block.fingerprints)
            if progress is not None:
                progress(done.origin, reports[done.origin].read, done.position)
    for origin, path in read.items():
        reports[origin].finish(path)
    _refuse_empty(tallies)
    _refuse_leakage(seen, directory, read)
    return {
        **{split: _account(directory, split, tallies[split], seen) for split in SPLITS},
        "bad_rows": {origin: dict(report.bad) for origin, report in reports.items() if report.bad},
        "bad_places": {origin: report.places for origin, report in reports.items() if report.bad},
        "vocabulary": vocabulary,
        "dtype": str(token_dtype(vocabulary)),
    }


def _account(directory: Path, split: str, tally: Tally, seen: Fingerprints) -> dict[str, Any]:
    from pipelines.tokens.dataset import TokenDataset
    from pipelines.tokens.lengths import summarise

    lengths = summarise(TokenDataset(directory, split))
    return {**tally.as_dict(), "duplicates": seen.duplicates(split), **lengths}


def _refuse_empty(tallies: dict[str, Tally]) -> None:
    tally = tallies["train"]
    if tally.counts["kept"]:
        return
    if not tally.dropped:
        rows = tallies["val"].counts["read"]
        raise DataError(f"data.val_fraction: all {rows} rows became validation rows", hint="lower it, or add rows")
    why = "; ".join(f"{rows} {reason}" for reason, rows in tally.dropped.items())
    raise DataError(f"no training row is left of {tally.counts['read']}: {why}", hint="raise data.max_prompt_len")


def _refuse_leakage(seen: Fingerprints, directory: Path, read: dict[str, str]) -> None:
    from pipelines.tokens.dataset import TokenDataset

    leaked = seen.leaked()
    if not len(leaked):
        return
    first = int(leaked[0])
    val, train = TokenDataset(directory, "val"), TokenDataset(directory, "train")
    twin = train.row(seen.index_of("train", "val", first))
    places = (
        f"{read[origin]}:{line}" for origin, _, line in (row.source.partition(":") for row in (val.row(first), twin))
    )
    raise DataError(
        f"{len(leaked)} of {len(val)} validation rows ask what a training row asks, such as {' and '.join(places)}",
        hint="remove them from one of the files, or leave data.val_path out and set data.val_fraction",
    )
