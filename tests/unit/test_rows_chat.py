"""Rendering through real tokenizers: templates, system messages, pre-opened thinking, EOS, and batches."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.errors import DataError
from pipelines.models import tiny
from pipelines.models.load import load_tokenizer
from pipelines.rows.chat import DEFAULT_TAGS, ChatEncoder, messages_for
from pipelines.rows.records import Row

PREOPENING = tiny.CHAT_TEMPLATE.replace("<|assistant|>", "<|assistant|><think>\n")
CLOSED = tiny.CHAT_TEMPLATE.replace("<|assistant|>", "<|assistant|><think>\n\n</think>\n\n")
STRICT = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role here') }}{% endif %}" + (
    tiny.CHAT_TEMPLATE
)
BY_MESSAGE = (
    tiny.CHAT_TEMPLATE + "{% if add_generation_prompt and '/think' in messages[-1].content %}<think>{% endif %}"
)


def render_prompt(tokenizer, row, system_prompt=None):
    """Token ids of one prompt."""
    return ChatEncoder(tokenizer, system_prompt).encode([row])[0].prompt


def preopens_thinking(tokenizer, row, tags=DEFAULT_TAGS):
    """Whether the template ends this prompt inside an open think tag."""
    encoder = ChatEncoder(tokenizer, None, tags)
    return encoder.preopened(row, encoder.render(row))


@pytest.fixture
def directory(tmp_path) -> Path:
    tiny.write_tokenizer(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(tiny.config()))
    return tmp_path


def with_template(directory: Path, template: str | None) -> Any:
    """The tokenizer of the directory, loaded again with another template (or none)."""
    (directory / "chat_template.jinja").unlink(missing_ok=True)
    settings = json.loads((directory / "tokenizer_config.json").read_text())
    settings.pop("chat_template", None)
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    if template is not None:
        (directory / "chat_template.jinja").write_text(template)
    return load_tokenizer(str(directory))


def text(tokenizer, ids) -> str:
    return tokenizer.decode(list(ids), skip_special_tokens=False)


def test_a_text_becomes_one_user_message(directory):
    tokenizer = load_tokenizer(str(directory))
    ids = render_prompt(tokenizer, Row("1+1=?"))
    assert text(tokenizer, ids) == "<|user|>1+1=?<|end|><|assistant|>"
    assert ids == tokenizer.apply_chat_template([{"role": "user", "content": "1+1=?"}], add_generation_prompt=True)


def test_messages_are_rendered_as_given(directory):
    tokenizer = load_tokenizer(str(directory))
    conversation = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]
    expected = "<|user|>a<|end|><|assistant|>b<|end|><|user|>c<|end|><|assistant|>"
    assert text(tokenizer, render_prompt(tokenizer, Row(conversation))) == expected


def test_the_nearest_system_message_wins():
    configured = messages_for(Row("a"), "configured")
    assert configured[0] == {"role": "system", "content": "configured"}
    assert messages_for(Row("a", system="own"), "configured")[0]["content"] == "own"
    inside = [{"role": "system", "content": "inside"}, {"role": "user", "content": "a"}]
    assert messages_for(Row(inside, system="own"), "configured") == inside
    assert messages_for(Row("a"), None) == [{"role": "user", "content": "a"}]


def test_without_a_template_prompts_are_plain_text(directory):
    tokenizer = with_template(directory, None)
    assert not tokenizer.has_chat_template
    assert text(tokenizer, render_prompt(tokenizer, Row("1+1=", system="Add."))) == "Add.\n\n1+1="
    assert not preopens_thinking(tokenizer, Row("a<think>"))


@pytest.mark.parametrize(("template", "opened"), [(tiny.CHAT_TEMPLATE, False), (PREOPENING, True), (CLOSED, False)])
@pytest.mark.parametrize("prompt", ["2*3=?", "what is <think>", "what is </think>"])
def test_only_what_the_template_adds_opens_thinking(directory, template, opened, prompt):
    assert preopens_thinking(with_template(directory, template), Row(prompt)) is opened


def test_a_template_may_decide_by_message(directory):
    tokenizer = with_template(directory, BY_MESSAGE)
    assert preopens_thinking(tokenizer, Row("a /think"))
    assert not preopens_thinking(tokenizer, Row("a"))


def test_other_tags_are_looked_for(directory):
    tokenizer = with_template(directory, PREOPENING.replace("<think>", "<reason>"))
    assert preopens_thinking(tokenizer, Row("a"), tags=("<reason>", "</reason>"))
    assert not preopens_thinking(tokenizer, Row("a"))
    assert not preopens_thinking(tokenizer, Row("a"), tags=("", ""))


def test_completions_end_with_one_eos(directory):
    tokenizer = load_tokenizer(str(directory))
    encoder = ChatEncoder(tokenizer)
    with_tags, plain, none = encoder.encode([Row("a", "<think>b</think>c"), Row("a", "The answer. #### 7"), Row("a")])
    assert text(tokenizer, with_tags.completion) == "<think>b</think>c<|end|>"
    assert text(tokenizer, plain.completion) == "The answer. #### 7<|end|>"
    assert with_tags.completion.count(tokenizer.eos_token_id) == 1
    assert none.completion == []


def test_an_opened_tag_is_not_said_twice(directory):
    tokenizer = with_template(directory, PREOPENING)
    first, second = ChatEncoder(tokenizer).encode([Row("a", "<think>\nb</think>c"), Row("a", "b</think>c")])
    assert first.preopened
    assert text(tokenizer, first.completion) == text(tokenizer, second.completion) == "b</think>c<|end|>"
    assert text(tokenizer, first.prompt).endswith("<|assistant|><think>\n")


def test_what_the_template_refuses_is_told_with_its_row(directory):
    tokenizer = with_template(directory, STRICT)
    assert render_prompt(tokenizer, Row("a"))
    with pytest.raises(DataError, match=r"^rows.jsonl:7: .*no system role here"):
        render_prompt(tokenizer, Row("a", system="s", source="rows.jsonl:7"))


def test_unknown_characters_are_known_as_such(directory):
    encoder = ChatEncoder(load_tokenizer(str(directory)))
    (row,) = encoder.encode([Row("\u00e9", "\u4e2d")])
    assert encoder.unknown_id in row.prompt
    assert encoder.unknown_id in row.completion
