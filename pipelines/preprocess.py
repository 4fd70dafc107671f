"""The preprocess stage: rows become token arrays, once, with an account of every row that did not.

Nothing heavy is imported while the arrays are there already.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines import plan
from pipelines.config import DataConfig, ExperimentConfig
from pipelines.errors import DataError, GrpoError
from pipelines.rows import sources
from pipelines.stages import store
from pipelines.stages.store import StageResult, StageState

if TYPE_CHECKING:
    from pipelines.rows.chat import ChatEncoder, EncodedRow
    from pipelines.rows.encode import EncoderSpec
    from pipelines.rows.fingerprints import Fingerprints
    from pipelines.rows.sources import ReadReport, SplitRow

SPLITS = ("train", "val")
STATED = ("read", "kept", "truncated", "without_completion", "mcq", "code", "preopened", "unknown_tokens")

Progress = Callable[[int], None]
"""Called with the number of rows done so far, after every thousand."""
PROGRESS_ROWS = 1_000


@dataclass(frozen=True)
class Preview:
    """The first training prompt as the model will see it."""

    source: str
    text: str
    prompt_tokens: int
    completion_tokens: int
    preopened: bool


@dataclass
class Tally:
    """What became of the rows of one split."""

    counts: Counter[str] = field(default_factory=Counter[str])
    dropped: Counter[str] = field(default_factory=Counter[str])

    def add(self, item: SplitRow, encoded: EncodedRow, unknown_id: int | None) -> None:
        """Count a row that is kept."""
        row = item.row
        self.counts["kept"] += 1
        self.counts["without_completion"] += row.completion is None
        self.counts["mcq"] += row.is_mcq
        self.counts["code"] += row.is_code
        self.counts["preopened"] += encoded.preopened
        self.counts["unknown_tokens"] += unknown_id in encoded.prompt or unknown_id in encoded.completion

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON, every count present."""
        return {**{name: self.counts[name] for name in STATED}, "dropped": dict(self.dropped)}


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
    identity, directory = _place(config)
    result = store.run_stage(
        identity, directory, lambda place: _work(config, place, progress), force=force, verify=verify
    )
    for split, prefix in zip(SPLITS, (export_train, export_val), strict=True):
        if prefix is not None:
            from pipelines.tokens.export import export_split

            export_split(directory, split, Path(prefix))
    return result


def state(config: ExperimentConfig, *, verify: bool = False) -> StageState:
    """What `run` would find; nothing is done."""
    return store.state(*_place(config), verify=verify)


def preview(config: ExperimentConfig) -> Preview:
    """Render the first usable training row; reads no more than it must."""
    encoder, _ = _encoder(config)
    first = next((item.row for item in sources.split_rows(config.data) if item.split == "train"), None)
    if first is None:
        raise DataError("there is no training row", hint="lower data.val_fraction")
    encoded = encoder.encode([first])[0]
    lengths = len(encoded.prompt), len(encoded.completion)
    return Preview(first.source, encoder.render(first), *lengths, encoded.preopened)


def long_references(result: StageResult, most_tokens: int) -> dict[str, int]:
    """For each split the reference completions that have more tokens than may be generated."""
    from pipelines.tokens.dataset import TokenDataset
    from pipelines.tokens.lengths import longer_than

    return {split: longer_than(TokenDataset(result.directory, split), most_tokens) for split in SPLITS}


def _place(config: ExperimentConfig) -> tuple[Any, Path]:
    sources.check_sources(config.data)
    identity = plan.preprocess_identity(config)
    return identity, plan.stage_directory(config, "preprocess", identity)


def _encoder(config: ExperimentConfig) -> tuple[ChatEncoder, EncoderSpec]:
    from pipelines.models.load import load_tokenizer
    from pipelines.rows.chat import ChatEncoder
    from pipelines.rows.encode import EncoderSpec

    tags = (config.generation.think_start_tag, config.generation.think_end_tag)
    spec = EncoderSpec(config.model.model_path, config.data.system_prompt, tags)
    return ChatEncoder(load_tokenizer(spec.model_path), spec.system_prompt, spec.tags), spec


def _work(config: ExperimentConfig, directory: Path, progress: Progress | None) -> dict[str, Any]:
    try:
        return _write(config, directory, progress)
    except GrpoError:
        shutil.rmtree(directory)  # a refused data set leaves nothing behind
        raise


def _write(config: ExperimentConfig, directory: Path, progress: Progress | None) -> dict[str, Any]:
    from pipelines.rows.encode import encode_stream
    from pipelines.rows.fingerprints import Fingerprints
    from pipelines.tokens.arrays import token_dtype
    from pipelines.tokens.dataset import SplitWriter

    encoder, spec = _encoder(config)
    vocabulary = encoder.vocabulary_size
    dtype = token_dtype(vocabulary)
    reports: dict[str, ReadReport] = {}
    tallies, seen = {split: Tally() for split in SPLITS}, Fingerprints()
    with ExitStack() as opened:
        writers = {split: opened.enter_context(closing(SplitWriter(directory, split, dtype))) for split in SPLITS}
        rows = encode_stream(sources.split_rows(config.data, reports), encoder, spec)
        for done, (item, encoded) in enumerate(rows, start=1):
            tally = tallies[item.split]
            tally.counts["read"] += 1
            prompt = _fitted(encoded.prompt, item, config.data, tally)
            if prompt is not None:
                tally.add(item, encoded, encoder.unknown_id)
                seen.add(item.split, item.row)
                writer = writers[item.split]
                writer.append(_placed(item), prompt, encoded.completion, preopened=encoded.preopened)
            if progress is not None and done % PROGRESS_ROWS == 0:
                progress(done)
    _refuse_empty(tallies["train"])
    _refuse_leakage(seen, directory)
    bad = {origin: dict(report.bad) for origin, report in reports.items() if report.bad}
    return {
        **{split: _account(directory, split, tallies[split], seen) for split in SPLITS},
        "bad_rows": bad,
        "vocabulary": vocabulary,
        "dtype": str(dtype),
    }


def _fitted(prompt: list[int], item: SplitRow, data: DataConfig, tally: Tally) -> list[int] | None:
    """The prompt as `data.long_prompts` wants it; None if it is dropped."""
    if len(prompt) <= data.max_prompt_len:
        return prompt
    if data.long_prompts == "error":
        raise DataError(
            f"{item.row.source}: the prompt has {len(prompt)} tokens, data.max_prompt_len is {data.max_prompt_len}",
            hint="raise data.max_prompt_len, or set data.long_prompts to drop or truncate_left",
        )
    if data.long_prompts == "drop":
        tally.dropped[f"prompt longer than {data.max_prompt_len} tokens"] += 1
        return None
    tally.counts["truncated"] += 1
    return prompt[-data.max_prompt_len :]


def _placed(item: SplitRow) -> Any:
    """The row with its source by name, `train:12`: what is written must not depend on where the file lies."""
    return replace(item.row, source=f"{item.origin}:{item.row.source.rpartition(':')[2]}")


def _account(directory: Path, split: str, tally: Tally, seen: Fingerprints) -> dict[str, Any]:
    from pipelines.tokens.dataset import TokenDataset
    from pipelines.tokens.lengths import summarise

    lengths = summarise(TokenDataset(directory, split))
    return {**tally.as_dict(), "duplicates": seen.duplicates(split), **lengths}


def _refuse_empty(tally: Tally) -> None:
    if not tally.counts["kept"]:
        why = "; ".join(f"{rows} {reason}" for reason, rows in tally.dropped.items()) or "none was read"
        raise DataError(f"no training row is left of {tally.counts['read']}: {why}", hint="raise data.max_prompt_len")


def _refuse_leakage(seen: Fingerprints, directory: Path) -> None:
    from pipelines.tokens.dataset import TokenDataset

    leaked = seen.leaked()
    if not len(leaked):
        return
    first = int(leaked[0])
    val, train = TokenDataset(directory, "val"), TokenDataset(directory, "train")
    twin = train.row(seen.index_of("train", "val", first)).source
    raise DataError(
        f"{len(leaked)} of {len(val)} validation rows ask what a training row asks, "
        f"such as line {val.row(first).source} and line {twin}",
        hint="remove them from one of the files, or leave data.val_path out and set data.val_fraction",
    )
