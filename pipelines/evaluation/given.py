"""Completions that are given as texts, not sampled here: gold ones, a file of them, made-up ones; as contexts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipelines.algorithms.regions import tags_for
from pipelines.config import ExperimentConfig
from pipelines.errors import DataError
from pipelines.evaluation.completions import completion_contexts
from pipelines.rewards.context import RewardContext, between, split_regions
from pipelines.rows.chat import ChatEncoder
from pipelines.rows.lines import read_lines
from pipelines.rows.records import BadRowError, Row, parse, row_from

GENERATED = "generated"


class Given(NamedTuple):
    """A row and a completion of it; `cut`: the length limit ended it."""

    row: Row
    text: str
    cut: bool = False


def read_given(path: Path, config: ExperimentConfig) -> list[Given]:
    """JSONL rows as in a data set plus `generated`, the text to score. DataError with file and line for a bad one."""
    found: list[Given] = []
    data = config.data
    for line in read_lines(path):
        where = f"{path}:{line.number}"
        try:
            record = {data.completion_key: None} | parse(line.content.decode())
            row = row_from(record, prompt_key=data.prompt_key, completion_key=data.completion_key, source=where)
            found.append(Given(row, _text(record), record.get("finish_reason") == "length"))
        except UnicodeDecodeError as error:
            raise DataError(f"{where}: not UTF-8", hint="save the file as UTF-8") from error
        except BadRowError as error:
            raise DataError(f"{where}: {error.message}", hint=error.hint) from error
    if not found:
        raise DataError(f"{path}: no rows", hint=f'each line is a row with its completion in "{GENERATED}"')
    return found


def given_contexts(tokenizer: Any, given: Sequence[Given], config: ExperimentConfig) -> list[RewardContext]:
    """One context each: lengths in tokens of this tokenizer, texts as they were given.

    Texts are kept because a tokenizer that does not know all characters would change them.
    """
    if not given:
        return []
    from pipelines.generation.rollouts import Rollouts

    generation = config.generation
    think_tags = (generation.think_start_tag, generation.think_end_tag)
    encoder = ChatEncoder(tokenizer, config.data.system_prompt, think_tags)
    encoded = encoder.encode([replace(each.row, completion=each.text) for each in given])
    lengths = np.array([len(each.completion) for each in encoded], np.int32)
    tokens = np.zeros((len(given), int(lengths.max())), np.int32)
    for n, each in enumerate(encoded):
        tokens[n, : lengths[n]] = each.completion
    reasons = ["length" if each.cut else "stop" for each in given]
    rollouts = Rollouts([], 1, tokens, lengths, np.zeros(tokens.shape, np.float32), reasons, 0.0)
    rows, opened = [each.row for each in given], [each.preopened for each in encoded]
    tags = tags_for(tokenizer, generation)
    contexts = completion_contexts(rollouts, rows, opened, tokenizer, tags)
    pairs = zip(contexts, given, strict=True)
    return [_with_text(context, each.text, think_tags, tags.answer) for context, each in pairs]


def _with_text(
    context: RewardContext, text: str, think_tags: tuple[str, str], answer_tags: tuple[str, str]
) -> RewardContext:
    if context.thinking_opened and text.lstrip().startswith(think_tags[0]):
        text = text.lstrip()[len(think_tags[0]) :]  # the prompt has opened the tag already
    thinking, answer = split_regions(text, think_tags, opened=context.thinking_opened)
    answer = between(answer, answer_tags)
    return replace(context, generated_text=text, thinking=thinking, answer=answer, think_tags=think_tags)


def _text(record: dict[str, Any]) -> str:
    if not isinstance(record.get(GENERATED), str):
        raise BadRowError(f"no text in {GENERATED!r}", hint=f'put the completion to score in "{GENERATED}"')
    return record[GENERATED]
