"""Contexts of rollouts: the right row for each completion, regions cut on token ids, end-of-text gone."""

from types import SimpleNamespace

import numpy as np
import pytest

from pipelines.algorithms.regions import Tags, tags_for
from pipelines.config import GenerationConfig
from pipelines.evaluation.completions import completion_contexts, prompt_text, thinking_lengths
from pipelines.generation.rollouts import Rollouts
from pipelines.models.load import load_tokenizer
from pipelines.models.tiny import config as tiny_config
from pipelines.models.tiny import write_tokenizer

TEXTS = ["<think>1+1</think>2<|end|>", "<think>1+", "4<|end|>", "</think>4"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    import json

    directory = tmp_path_factory.mktemp("tokenizer")
    (directory / "config.json").write_text(json.dumps(tiny_config()))
    write_tokenizer(directory)
    return load_tokenizer(str(directory))


@pytest.fixture(scope="module")
def tags(tokenizer) -> Tags:
    return tags_for(tokenizer, GenerationConfig())


def rollouts_of(tokenizer, texts: list[str], group_size: int) -> Rollouts:
    rows = [np.array(tokenizer.encode(text, add_special_tokens=False), np.int32) for text in texts]
    width = max(map(len, rows))
    tokens = np.zeros((len(rows), width), np.int32)
    for n, row in enumerate(rows):
        tokens[n, : len(row)] = row
    prompts = [np.array([5], np.int32)] * (len(rows) // group_size)
    lengths = np.array([len(row) for row in rows], np.int32)
    reasons = ["stop" if text.endswith("<|end|>") else "length" for text in texts]
    return Rollouts(prompts, group_size, tokens, lengths, np.zeros_like(tokens, np.float32), reasons, 1.0)


def row(prompt, completion):
    return SimpleNamespace(prompt=prompt, completion=completion, system=None, test_cases=(), meta={"of": prompt})


def test_each_completion_gets_the_row_of_its_group(tokenizer, tags):
    rows = [row("1+1", "<think>easy</think>2"), row("2+2", "4")]
    contexts = completion_contexts(rollouts_of(tokenizer, TEXTS, 2), rows, [False, False], tokenizer, tags, step=7)
    assert [context.prompt_text for context in contexts] == ["1+1", "1+1", "2+2", "2+2"]
    assert [context.reference_answer for context in contexts] == ["2", "2", "4", "4"]
    assert [context.finish_reason for context in contexts] == ["stop", "length", "stop", "length"]
    assert {context.step for context in contexts} == {7}


def test_regions_are_cut_on_tokens_and_end_of_text_is_gone(tokenizer, tags):
    contexts = completion_contexts(rollouts_of(tokenizer, TEXTS, 4), [row("q", None)], [False], tokenizer, tags)
    regions = [(context.thinking, context.answer) for context in contexts]
    assert regions == [("1+1", "2"), ("1+", ""), ("", "4"), ("", "4")]
    assert [context.thinking_tokens for context in contexts] == [3, 2, 0, 0]
    assert not any("<|end|>" in context.generated_text for context in contexts)


def test_thinking_opened_by_the_prompt_makes_an_unclosed_completion_thinking(tokenizer, tags):
    rollouts = rollouts_of(tokenizer, ["12<|end|>", "12<|end|>"], 1)
    assert thinking_lengths(rollouts, [True, False], tokenizer, tags).tolist() == [3, 0]
    opened, plain = completion_contexts(rollouts, [row("q", None)] * 2, [True, False], tokenizer, tags)
    assert (opened.thinking, opened.answer) == ("12", "")
    assert (plain.thinking, plain.answer) == ("", "12")


def test_lengths_that_are_handed_in_are_used(tokenizer, tags):
    rollouts = rollouts_of(tokenizer, ["12"], 1)
    (context,) = completion_contexts(
        rollouts, [row("q", None)], [False], tokenizer, tags, lengths=np.array([1], np.int32)
    )
    assert (context.thinking, context.answer) == ("1", "2")


def test_prompt_text_of_messages():
    assert prompt_text([{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]) == "a\n\nb"
