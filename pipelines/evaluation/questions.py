"""Prompts that are no row of the data set: texts and files of a user's, rendered as training renders its rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.config import ExperimentConfig
from pipelines.errors import DataError
from pipelines.evaluation.completions import Prompt
from pipelines.rows.chat import ChatEncoder
from pipelines.rows.lines import read_lines
from pipelines.rows.records import BadRowError, Row, parse, row_from


def rows_of_file(path: Path, config: ExperimentConfig) -> list[Row]:
    """The prompts of a file: rows as in a data set for `.jsonl` (`.gz` too), otherwise one prompt a line.

    A row needs no completion here; one that has it can be rewarded. DataError with file and line for a bad one.
    """
    name = path.name.removesuffix(".gz")
    rows = list(_json_rows(path, config) if name.endswith((".jsonl", ".json")) else _lines(path))
    if not rows:
        raise DataError(f"{path}: no prompts", hint="write one prompt a line, or JSONL rows with a prompt field")
    return rows


def encoder_for(tokenizer: Any, config: ExperimentConfig, *, chat: bool = True) -> ChatEncoder:
    """What turns rows into tokens as training does; without `chat` a prompt is plain text, and no system prompt."""
    generation = config.generation
    tags = (generation.think_start_tag, generation.think_end_tag)
    encoder = ChatEncoder(tokenizer, config.data.system_prompt if chat else None, tags)
    encoder.has_template = encoder.has_template and chat
    return encoder


def rendered(tokenizer: Any, rows: Sequence[Row], config: ExperimentConfig, *, chat: bool = True) -> list[Prompt]:
    """Rows as prompts, through the chat template and with the system prompt of the data set."""
    encoded = encoder_for(tokenizer, config, chat=chat).encode(rows)
    return [
        Prompt(index, np.array(each.prompt, np.int32), each.preopened, row)
        for index, (each, row) in enumerate(zip(encoded, rows, strict=True))
    ]


def _lines(path: Path) -> Iterator[Row]:
    for line in read_lines(path):
        yield Row(line.content.decode(errors="replace").strip(), source=f"{path}:{line.number}")


def _json_rows(path: Path, config: ExperimentConfig) -> Iterator[Row]:
    data = config.data
    for line in read_lines(path):
        where = f"{path}:{line.number}"
        try:
            record = {data.completion_key: None} | parse(line.content.decode())
            yield row_from(record, prompt_key=data.prompt_key, completion_key=data.completion_key, source=where)
        except UnicodeDecodeError as error:
            raise DataError(f"{where}: not UTF-8", hint="save the file as UTF-8") from error
        except BadRowError as error:
            raise DataError(f"{where}: {error.message}", hint=error.hint) from error
