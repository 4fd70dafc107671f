"""The blank of the built-in model: the same bytes each time, and a tokenizer that loses no printable character."""

import string

import mlx.core as mx
import pytest

from pipelines.models.leaves import leaves
from pipelines.models.load import load
from pipelines.models.tiny import SPECIAL, TAGS, config, write_blank

PRINTABLE = "".join(character for character in string.printable if character.isprintable())


@pytest.fixture(scope="module")
def blank(tmp_path_factory):
    directory = tmp_path_factory.mktemp("models") / "blank"
    write_blank(directory)
    return directory


@pytest.fixture(scope="module")
def loaded(blank):
    return load(str(blank))


def encode(loaded, text):
    return loaded.tokenizer.encode(text, add_special_tokens=False)


def test_the_blank_is_the_same_each_time(blank, tmp_path):
    mx.random.seed(99)
    write_blank(tmp_path)
    names = sorted(path.name for path in blank.iterdir())
    assert names == sorted(path.name for path in tmp_path.iterdir())
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= set(names)
    for name in names:
        assert (blank / name).read_bytes() == (tmp_path / name).read_bytes(), name
    write_blank(tmp_path, seed=1)
    assert (blank / "model.safetensors").read_bytes() != (tmp_path / "model.safetensors").read_bytes()


def test_it_is_small_and_has_heads_that_cuda_can_rotate(loaded):
    assert 300_000 < sum(leaf.size for leaf in leaves(loaded.model.parameters()).values()) < 1_000_000
    assert config()["head_dim"] == 32


@pytest.mark.parametrize("text", [PRINTABLE, PRINTABLE[::-1], "\n", "a\n\n  b ", " leading and trailing ", ""])
def test_printable_text_comes_back_as_it_was(loaded, text):
    ids = encode(loaded, text)
    assert len(ids) == len(text)
    assert loaded.tokenizer.decode(ids) == text


def test_tags_and_marks_are_one_token_each(loaded):
    for token in TAGS + SPECIAL:
        assert len(encode(loaded, token)) == 1
    ids = encode(loaded, "<think>1+1</think>2<|end|>")
    assert len(ids) == 1 + 3 + 1 + 1 + 1
    assert loaded.tokenizer.decode(ids, skip_special_tokens=True) == "<think>1+1</think>2"
    assert loaded.eos_ids == {ids[-1]}


def test_anything_else_is_unknown(loaded):
    assert encode(loaded, "\u00e9\t") == [SPECIAL.index("<|unknown|>")] * 2


def test_the_chat_template_with_and_without_a_system_prompt(loaded):
    system, user = {"role": "system", "content": "Be brief."}, {"role": "user", "content": "1+1?"}
    answer = {"role": "assistant", "content": "2"}

    def render(*messages, **options):
        return loaded.tokenizer.apply_chat_template(list(messages), tokenize=False, **options)

    asked = "<|user|>1+1?<|end|><|assistant|>"
    assert render(user, add_generation_prompt=True) == asked
    assert render(system, user, add_generation_prompt=True) == f"<|system|>Be brief.<|end|>{asked}"
    assert render(user, answer) == "<|user|>1+1?<|end|><|assistant|>2<|end|>"
    ids = loaded.tokenizer.apply_chat_template([system, user], add_generation_prompt=True)
    assert list(ids) == encode(loaded, render(system, user, add_generation_prompt=True))
