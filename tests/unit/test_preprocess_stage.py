"""The preprocess stage end to end on real tokenizers: what is written, counted, dropped, refused, reused."""

import json
from pathlib import Path

import numpy as np
import pytest

from pipelines import preprocess
from pipelines.config import DataConfig, ExperimentConfig, ModelConfig, PathsConfig, SyntheticConfig
from pipelines.errors import DataError
from pipelines.models import tiny
from pipelines.models.load import load_tokenizer
from pipelines.tokens.dataset import FILES, TokenDataset


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("model")
    tiny.write_tokenizer(directory)
    (directory / "config.json").write_text(json.dumps(tiny.config()))
    return directory


@pytest.fixture
def configured(model, tmp_path):
    """A configuration of the data settings given, its store in a folder of its own."""

    def make(**data) -> ExperimentConfig:
        return ExperimentConfig(
            model=ModelConfig(model_path=str(model)),
            data=DataConfig(**data),
            paths=PathsConfig(stages=str(tmp_path / "stages")),
        )

    return make


def rows_file(path: Path, *rows: dict) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def numbered(count: int, offset: int = 0) -> list[dict]:
    return [{"prompt": f"{i}+0=?", "completion": str(i)} for i in range(offset, offset + count)]


def test_arrays_hold_the_rendered_rows(configured, model, tmp_path):
    train = rows_file(
        tmp_path / "rows.jsonl",
        {"prompt": "1+1=?", "completion": "<think>1+1</think>2"},
        {"prompt": "f", "completion": None, "test_cases": ["assert f()"]},
        {"prompt": "p", "completion": "A", "meta": {"options": ["a", "b"], "correct_letters": ["A"]}},
    )
    result = preprocess.run(configured(train_path=train, system_prompt="Be brief."))
    tokenizer = load_tokenizer(str(model))
    dataset = TokenDataset(result.directory, "train")
    assert tokenizer.decode(dataset.prompt_tokens(0).tolist()) == (
        "<|system|>Be brief.<|end|><|user|>1+1=?<|end|><|assistant|>"
    )
    assert tokenizer.decode(dataset.completion_tokens(0).tolist()) == "<think>1+1</think>2<|end|>"
    assert dataset.completion_tokens(1).tolist() == []
    assert [dataset.row(i).source for i in range(3)] == ["train:1", "train:2", "train:3"]
    assert np.load(result.directory / "train_prompts.npy").dtype == np.uint16
    found = result.summary["train"]
    stated = {name: found[name] for name in ("read", "kept", "without_completion", "mcq", "code", "duplicates")}
    assert stated == {"read": 3, "kept": 3, "without_completion": 1, "mcq": 1, "code": 1, "duplicates": 0}
    assert result.summary["val"]["kept"] == len(TokenDataset(result.directory, "val")) == 0
    assert result.summary["dtype"] == "uint16"


def test_a_second_run_is_cached_wherever_the_file_lies(configured, tmp_path):
    first = preprocess.run(configured(train_path=rows_file(tmp_path / "a.jsonl", *numbered(3))))
    moved = preprocess.run(configured(train_path=rows_file(tmp_path / "b.jsonl", *numbered(3)), max_gen_len=32))
    changed = preprocess.run(configured(train_path=rows_file(tmp_path / "c.jsonl", *numbered(4))))
    forced = preprocess.run(configured(train_path=str(tmp_path / "a.jsonl")), force=True)
    assert [result.status for result in (first, moved, changed, forced)] == ["ran", "cached", "ran", "ran"]
    assert first.directory == moved.directory == forced.directory != changed.directory
    assert moved.summary == first.summary


def test_two_runs_write_the_same_bytes(configured, tmp_path):
    train = rows_file(tmp_path / "a.jsonl", *numbered(30))
    result = preprocess.run(configured(train_path=train, val_fraction=0.3))
    before = {path.name: path.read_bytes() for path in result.directory.glob("*_*")}
    assert len(before) == 12
    preprocess.run(configured(train_path=train, val_fraction=0.3), force=True)
    assert {path.name: path.read_bytes() for path in result.directory.glob("*_*")} == before


LONG = {"prompt": "1" * 50, "completion": "2"}


def test_long_prompts_are_dropped_and_counted(configured, tmp_path):
    train = rows_file(tmp_path / "rows.jsonl", *numbered(2), LONG)
    result = preprocess.run(configured(train_path=train, max_prompt_len=20))
    assert result.summary["train"]["dropped"] == {"prompt longer than 20 tokens": 1}
    assert (result.summary["train"]["read"], result.summary["train"]["kept"]) == (3, 2)


def test_long_prompts_keep_their_end_when_truncated(configured, model, tmp_path):
    train = rows_file(tmp_path / "rows.jsonl", *numbered(2), LONG)
    result = preprocess.run(configured(train_path=train, max_prompt_len=20, long_prompts="truncate_left"))
    ids = TokenDataset(result.directory, "train").prompt_tokens(2).tolist()
    assert load_tokenizer(str(model)).decode(ids) == "1" * 18 + "<|end|><|assistant|>"
    assert result.summary["train"]["truncated"] == 1


def test_long_prompts_may_be_an_error_with_their_line(configured, tmp_path):
    train = rows_file(tmp_path / "rows.jsonl", *numbered(2), LONG)
    with pytest.raises(DataError, match=r"rows.jsonl:3: the prompt has 53 tokens, data.max_prompt_len is 20"):
        preprocess.run(configured(train_path=train, max_prompt_len=20, long_prompts="error"))


def test_a_limit_of_exactly_the_length_keeps_the_row(configured, tmp_path):
    train = rows_file(tmp_path / "rows.jsonl", LONG)
    assert preprocess.run(configured(train_path=train, max_prompt_len=53)).summary["train"]["kept"] == 1


def test_long_references_stay_and_are_counted(configured, tmp_path):
    train = rows_file(tmp_path / "rows.jsonl", *numbered(2), {"prompt": "p", "completion": "2" * 90})
    result = preprocess.run(configured(train_path=train, max_gen_len=40))
    assert len(TokenDataset(result.directory, "train").completion_tokens(2)) == 91
    assert preprocess.long_references(result, 40) == {"train": 1, "val": 0}
    assert preprocess.long_references(result, 91) == {"train": 0, "val": 0}


def test_leakage_is_refused_with_the_count(configured, tmp_path):
    train = rows_file(tmp_path / "train.jsonl", *numbered(10))
    val = rows_file(tmp_path / "val.jsonl", *numbered(4, offset=8))
    with pytest.raises(DataError, match=r"2 of 4 validation rows.*val.jsonl:1 and .*train.jsonl:9"):
        preprocess.run(configured(train_path=train, val_path=val))


def test_duplicates_are_counted_and_never_leak_through_the_split(configured, tmp_path):
    train = rows_file(tmp_path / "train.jsonl", *numbered(200), *numbered(200))
    result = preprocess.run(configured(train_path=train, val_fraction=0.3))
    kept = {split: result.summary[split]["kept"] for split in ("train", "val")}
    assert kept["train"] + kept["val"] == 400
    assert kept["val"] > 60
    assert {split: 2 * result.summary[split]["duplicates"] for split in kept} == kept


@pytest.mark.parametrize(
    ("rows", "settings", "reason"),
    [
        ([{"prompt": "a", "completion": 1}], {}, "completion is a number"),
        ([LONG], {"max_prompt_len": 20}, "no training row is left of 1: 1 prompt longer than 20 tokens"),
        (numbered(3), {"val_path": "same"}, "3 of 3 validation rows"),
    ],
)
def test_a_refused_data_set_leaves_nothing_behind(configured, tmp_path, rows, settings, reason):
    train = rows_file(tmp_path / "rows.jsonl", *rows)
    if "val_path" in settings:
        settings = {"val_path": train}
    with pytest.raises(DataError, match=reason):
        preprocess.run(configured(train_path=train, **settings))
    assert not list((tmp_path / "stages").glob("preprocess/[0-9a-f]*"))


def test_skipped_rows_are_in_the_summary(configured, tmp_path):
    train = rows_file(tmp_path / "rows.jsonl", *numbered(20), {"prompt": ""})
    result = preprocess.run(configured(train_path=train, on_bad_row="skip"))
    assert result.summary["bad_rows"] == {"train": {"prompt is blank": 1}}
    assert result.summary["bad_places"] == {"train": {"prompt is blank": f"{train}:21"}}


def test_unknown_characters_are_counted(configured, tmp_path):
    train = rows_file(tmp_path / "rows.jsonl", *numbered(2), {"prompt": "\u00e9t\u00e9", "completion": "1"})
    assert preprocess.run(configured(train_path=train)).summary["train"]["unknown_tokens"] == 1


def test_end_tokens_in_completions(configured, tmp_path):
    """One behind a completion is taken off, by rewards too; one within it is counted."""
    said = ["4", "4<|end|>", "4<|end|>\n", "4<|end|><|user|>5<|end|>", "<|end|>"]
    train = rows_file(tmp_path / "rows.jsonl", *({"prompt": f"{n}", "completion": text} for n, text in enumerate(said)))
    result = preprocess.run(configured(train_path=train))
    dataset = TokenDataset(result.directory, "train")
    bare = dataset.completion_tokens(0).tolist()
    assert [dataset.completion_tokens(n).tolist() for n in (1, 2)] == [bare, bare]
    assert [dataset.row(n).completion for n in range(5)] == ["4", "4", "4", "4<|end|><|user|>5", "<|end|>"]
    assert result.summary["train"]["ended_early"] == 2


def test_built_in_and_synthetic_rows(configured):
    builtin = preprocess.run(configured()).summary
    synthetic = SyntheticConfig(train_rows=40, val_rows=10, difficulty=3)
    generated = preprocess.run(configured(loader_type="synthetic", synthetic=synthetic)).summary
    assert builtin["train"]["kept"] == builtin["train"]["read"] >= 5000
    assert builtin["val"]["kept"] == 500
    assert builtin["train"]["unknown_tokens"] == 0
    assert (generated["train"]["kept"], generated["val"]["kept"]) == (40, 10)


def test_exports_are_written_from_the_cache_too(configured, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    config = configured(train_path=rows_file(tmp_path / "rows.jsonl", *numbered(20)), val_fraction=0.4)
    preprocess.run(config)
    result = preprocess.run(config, export_train=tmp_path / "out" / "t", export_val="~/out/v")
    assert result.status == "cached"
    for name, split in (("t", "train"), ("v", "val")):
        exported, stored = TokenDataset(tmp_path / "out", name), TokenDataset(result.directory, split)
        assert [exported.row(i) for i in range(len(exported))] == [stored.row(i) for i in range(len(stored))]


def test_what_was_exported_is_read_back_to_the_byte(configured, tmp_path):
    rows = [*numbered(3), {"prompt": "f", "completion": None, "test_cases": ["assert f()"], "meta": {"k": [1]}}]
    first = preprocess.run(
        configured(train_path=rows_file(tmp_path / "rows.jsonl", *rows)), export_train=tmp_path / "mine"
    )
    again = preprocess.run(configured(loader_type="npy", train_path=str(tmp_path / "mine")))
    assert again.directory != first.directory
    for name in FILES:
        assert (again.directory / f"train_{name}").read_bytes() == (first.directory / f"train_{name}").read_bytes()
    assert again.summary == first.summary


@pytest.mark.parametrize("loader", ["jsonl", "hf"])
def test_duplicates_leakage_and_limits_are_the_same_for_every_loader(configured, tmp_path, loader):
    train = rows_file(tmp_path / "train.jsonl", *numbered(10), *numbered(3))
    val = rows_file(tmp_path / "val.jsonl", *numbered(4, offset=8))
    result = preprocess.run(configured(loader_type=loader, train_path=train, limit=11))
    assert (result.summary["train"]["kept"], result.summary["train"]["duplicates"]) == (11, 1)
    with pytest.raises(DataError, match=r"2 of 4 validation rows.*val.jsonl:1 and .*train.jsonl:9"):
        preprocess.run(configured(loader_type=loader, train_path=train, val_path=val))


def test_looking_does_nothing(configured, tmp_path):
    config = configured(train_path=rows_file(tmp_path / "rows.jsonl", *numbered(2)))
    assert preprocess.state(config).status == "missing"
    preview = preprocess.preview(config)
    assert preview.text == "<|user|>0+0=?<|end|><|assistant|>"
    assert (preview.prompt_tokens, preview.completion_tokens, preview.preopened) == (8, 2, False)
    assert not (tmp_path / "stages" / "preprocess").exists()
    preprocess.run(config)
    assert preprocess.state(config).status == "cached"


@pytest.mark.slow
def test_parallel_work_writes_the_same_bytes(configured, tmp_path, monkeypatch):
    config = configured(train_path=rows_file(tmp_path / "rows.jsonl", *numbered(500)), val_fraction=0.2)
    result = preprocess.run(config)
    before = {path.name: path.read_bytes() for path in result.directory.glob("*_*")}
    monkeypatch.setattr("pipelines.rows.encode.PARALLEL_CHUNKS", 2)
    monkeypatch.setattr("pipelines.rows.loaders.jsonl.CHUNK_ROWS", 50)
    monkeypatch.setattr("pipelines.rows.encode._cores", lambda: 3)
    preprocess.run(config, force=True)
    assert {path.name: path.read_bytes() for path in result.directory.glob("*_*")} == before
