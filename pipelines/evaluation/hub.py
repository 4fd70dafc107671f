"""A data set of the Hugging Face hub as a JSONL file: fetched once, and a file like any other from then on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import cast

from pipelines.errors import DataError
from pipelines.files import TEMPORARY_SUFFIX
from pipelines.hub import before_fetching


def hub_file(dataset: str, subset: str | None, split: str) -> Path:
    """The rows of one split, in the hub's cache of assets; DataError if they are not there and cannot be fetched.

    NotHereError if they are not there, while only looking.
    """
    from huggingface_hub import constants

    folder = dataset.replace("/", "--").replace(" ", "--")
    place = Path(constants.HF_ASSETS_CACHE).expanduser() / "grpo" / "benchmarks" / folder
    path = place / f"{subset or 'default'}-{split}.jsonl"
    if not path.is_file():
        before_fetching(_full_name(dataset, subset, split))
        _fetch(dataset, subset, split, path)
    return path


def _full_name(dataset: str, subset: str | None, split: str) -> str:
    return "/".join([dataset, *([subset] if subset else []), split])


def _fetch(dataset: str, subset: str | None, split: str, path: Path) -> None:
    from datasets import Dataset, load_dataset

    try:
        rows = cast("Dataset", load_dataset(dataset, subset, split=split))
    except (OSError, ValueError, RuntimeError) as error:  # no connection, no such data set, subset or split
        reason = str(error).partition("\n")[0]
        raise DataError(
            f"the data set {_full_name(dataset, subset, split)} cannot be fetched from the hub: {reason}",
            hint="give its rows as a file instead: `path` in the benchmark's config",
        ) from error
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}{TEMPORARY_SUFFIX}")
    try:
        rows.to_json(unfinished, force_ascii=False)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
