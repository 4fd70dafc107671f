"""Every kind of source: registered, read, refused; what came as tokens, what came as tables."""

import json
import logging

import numpy as np
import pytest
from pydantic import ValidationError

from pipelines.config import DataConfig, ExperimentConfig
from pipelines.errors import ConfigError, DataError
from pipelines.rows.encode import EncoderSpec, RowEncoder
from pipelines.rows.files import data_files
from pipelines.rows.loaders.base import BaseLoader
from pipelines.rows.loaders.plain import plain
from pipelines.rows.loaders.registry import LoaderRegistry, loader_for
from pipelines.rows.records import BadRowError
from pipelines.rows.sources import ReadReport, read_rows
from pipelines.tokens.arrays import write_ragged

QUESTIONS = {"question": "prompt", "answer": "completion"}
TABLE = [{"question": f"{i}+1=?", "answer": i + 1, "choices": ["a", "b"], "right": i % 2} for i in range(7)]


@pytest.fixture
def own_registry(monkeypatch):
    monkeypatch.setattr(LoaderRegistry, "_classes", dict(LoaderRegistry._classes))


def encoded(data: DataConfig, report: ReadReport | None = None):
    """The rows of every source with their tokens, from the built-in model's tokenizer."""
    encoder = RowEncoder(EncoderSpec("builtin:tiny", data, ("<think>", "</think>")))
    report = ReadReport() if report is None else report
    return [
        pair
        for path in encoder.loader.sources().values()
        for chunk in encoder.loader.cut(path)
        for pair in encoder.tokenised(list(encoder.usable_rows(chunk, report)))
    ]


def test_names_are_taken_once(own_registry):
    class Mine(BaseLoader):
        pass

    LoaderRegistry.register("mine")(Mine)
    LoaderRegistry.register("mine")(Mine)
    with pytest.raises(ConfigError, match="two loaders want the name 'jsonl'"):
        LoaderRegistry.register("jsonl")(Mine)
    with pytest.raises(ConfigError, match="does not derive from BaseLoader"):
        LoaderRegistry.register("other")(int)
    with pytest.raises(ConfigError, match=r"data\.loader_type: there is no loader called 'mien'") as caught:
        loader_for(DataConfig(loader_type="mien"))
    assert "did you mean 'mine'?" in caught.value.hint


def test_columns_are_renamed_and_put_into_meta(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in TABLE))
    columns = {"question": "prompt", "choices": "meta.options", "right": "meta.correct_index", "absent": "system"}
    (first, *_) = read_rows(path, DataConfig(columns=columns))
    assert (first.prompt, first.meta) == ("0+1=?", {"options": ["a", "b"], "correct_index": 0})
    assert first.is_mcq


def test_plain_data_is_what_json_holds():
    record = {"a": np.arange(2), "b": (np.float32(0.5), None), "c": {"d": None, "e": "x"}, "f": None}
    assert plain(record) == {"a": [0, 1], "b": [0.5, None], "c": {"e": "x"}, "f": None}
    for bad, told in [
        ({"a": float("nan")}, "a is nan"),
        ({"a": [b"x"]}, r"a\[0\] is of the type bytes"),
        ({"a": {"b": {1}}}, r"a\.b is of the type set"),
        ({1: "a"}, "the field 1 is no text"),
        ({"a": "\ud800"}, "half of a surrogate pair"),
        ([1], "not an object but a list"),
    ]:
        with pytest.raises(BadRowError, match=told):
            plain(bad)
    deep = []
    for _ in range(200):
        deep = [deep]
    with pytest.raises(BadRowError, match="nested too deeply"):
        plain({"a": deep})


# Arrays of token ids.


def arrays(tmp_path, prompts, completions=None, **settings) -> DataConfig:
    np.save(tmp_path / "mine_prompts.npy", np.array(prompts))
    if completions is not None:
        np.save(tmp_path / "mine_completions.npy", np.array(completions))
    return DataConfig(loader_type="npy", train_path=str(tmp_path / "mine"), **settings)


def tokens(pairs):
    return [(each.prompt, each.completion) for _, each in pairs]


def test_rectangles_lose_their_padding_on_either_side_and_gain_one_eos(tmp_path):
    pad = RowEncoder(EncoderSpec("builtin:tiny", DataConfig(), ("<think>", "</think>"))).chat.pad_id
    eos = RowEncoder(EncoderSpec("builtin:tiny", DataConfig(), ("<think>", "</think>"))).chat.eos_id
    prompts = [[pad, 11, 12, 13], [11, 12, pad, pad], [11, pad, 12, 13]]
    found = encoded(arrays(tmp_path, prompts, [[14, 15, pad], [14, 15, 16], [pad, pad, pad]]))
    assert tokens(found) == [
        ([11, 12, 13], [14, 15, eos]),
        ([11, 12], [14, 15, 16, eos]),
        ([11, pad, 12, 13], []),
    ]
    row = found[0][0]
    assert (row.source, len(row.prompt), len(row.completion)) == (f"{tmp_path}/mine:1", 3, 2)
    assert found[2][0].completion is None


def test_padding_may_be_named(tmp_path):
    prompts = [[-100, 11, 12], [11, 12, -100]]
    assert tokens(encoded(arrays(tmp_path, prompts, pad_id=-100))) == [([11, 12], [])] * 2
    right = arrays(tmp_path, [[9, 11, 9], [9, 9, 12]], pad_id=9, pad_side="right")
    assert tokens(encoded(right)) == [([9, 11], []), ([9, 9, 12], [])]


def test_ids_of_another_tokenizer_are_refused_with_the_row(tmp_path):
    data = arrays(tmp_path, [[11, 12], [11, 90_000]])
    with pytest.raises(DataError, match=r"mine:2: id 90000 at position 1 of the prompt"):
        encoded(data)
    report = ReadReport()
    assert len(encoded(data.model_copy(update={"on_bad_row": "skip"}), report)) == 1
    assert report.bad.total() == 1
    with pytest.raises(DataError, match="nothing but padding"):
        encoded(arrays(tmp_path, [[5, 5]], pad_id=5))


def test_one_file_holds_prompts_and_ragged_arrays_need_no_texts(tmp_path):
    np.save(tmp_path / "alone.npy", np.array([[11, 12], [13, 14]], np.uint16))
    alone = DataConfig(loader_type="npy", train_path=str(tmp_path / "alone.npy"), limit=1)
    assert tokens(encoded(alone)) == [([11, 12], [])]
    write_ragged(tmp_path / "ragged_prompts", [[11], [12, 13]])
    assert tokens(encoded(DataConfig(loader_type="npy", train_path=str(tmp_path / "ragged")))) == [
        ([11], []),
        ([12, 13], []),
    ]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (np.zeros((2, 2)), "float64"),
        (np.zeros((2, 2, 2), int), "3 dimensions"),
        (np.zeros(4, int), "no mine_prompts_offsets.npy"),
        (np.array([[{}]]), "cannot be read as an array"),
    ],
    ids=["floats", "cube", "flat", "objects"],
)
def test_arrays_that_hold_no_rows_are_refused(tmp_path, content, told):
    np.save(tmp_path / "mine_prompts.npy", content, allow_pickle=True)
    loader = loader_for(DataConfig(loader_type="npy", train_path=str(tmp_path / "mine")))
    with pytest.raises(DataError, match=told):
        loader.check(loader.sources()["train"])


@pytest.mark.parametrize("content", [b"hello", b"\x80\x04N.", b"\x93NUMPY\x01\0\x10\0{'descr': '<i8', (", b""])
def test_a_file_that_is_no_array(tmp_path, content):
    (tmp_path / "alone.npy").write_bytes(content)
    loader = loader_for(DataConfig(loader_type="npy", train_path=str(tmp_path / "alone.npy")))
    with pytest.raises(DataError, match=r"alone\.npy: (not a NumPy array|cannot be read as an array)"):
        loader.check(str(tmp_path / "alone.npy"))


def test_a_column_that_stands_twice_is_refused(tmp_path):
    (tmp_path / "rows.csv").write_text("prompt,prompt,completion\na,b,c\n")
    with pytest.raises(DataError, match=r"rows\.csv:1: the column 'prompt' stands twice"):
        list(read_rows(tmp_path / "rows.csv", DataConfig(loader_type="hf")))


def test_sides_of_different_lengths_are_refused(tmp_path):
    loader = loader_for(arrays(tmp_path, [[1, 2]], [[1, 2], [3, 4]]))
    with pytest.raises(DataError, match="1 prompts but 2 completions"):
        loader.check(str(tmp_path / "mine"))


# Tables.


@pytest.fixture(params=["parquet", "arrow", "json", "jsonl", "csv"])
def table(request, tmp_path):
    """The same rows in each kind of file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / f"rows.{request.param}"
    rows = pa.Table.from_pylist(TABLE)
    if request.param == "parquet":
        pq.write_table(rows, path)
    elif request.param == "arrow":
        with pa.ipc.new_stream(str(path), rows.schema) as writer:
            writer.write_table(rows)
    elif request.param == "json":
        path.write_text(json.dumps(TABLE))
    elif request.param == "jsonl":
        path.write_text("\n".join(map(json.dumps, TABLE)))
    else:
        path.write_text("question,answer\n" + "".join(f'"{each["question"]}",{each["answer"]}\n' for each in TABLE))
    return path


def test_tables_of_every_kind_give_the_same_rows(table):
    data = DataConfig(loader_type="hf", train_path=str(table), columns=QUESTIONS)
    rows = list(read_rows(table, data))
    assert [(row.prompt, row.completion) for row in rows] == [(f"{i}+1=?", f"{i + 1}") for i in range(7)]
    assert rows[6].source == f"{table}:7"
    assert len(list(read_rows(table, data.model_copy(update={"limit": 3})))) == 3
    assert data_files(data) == {"train_path": {table.suffix: table}}


def test_a_saved_data_set_has_splits_and_messages(tmp_path):
    import datasets

    rows = [{"prompt": [{"role": "user", "content": f"{i}?"}], "completion": "x"} for i in range(5)]
    whole = datasets.Dataset.from_list(rows)
    datasets.disable_progress_bars()
    datasets.DatasetDict({"train": whole, "test": whole.select([4])}).save_to_disk(tmp_path / "saved")
    data = DataConfig(loader_type="hf", train_path=str(tmp_path / "saved"), hf_val_split="test")
    loader = loader_for(data)
    found = {
        origin: [row for chunk in loader.cut(path) for row in loader.rows(chunk)]
        for origin, path in loader.sources().items()
    }
    assert [len(part) for part in found.values()] == [5, 1]
    assert found["val"][0].prompt == rows[4]["prompt"]
    assert found["val"][0].source == f"{tmp_path}/saved[test]:1"
    with pytest.raises(DataError, match="no split 'none'") as caught:
        list(loader.cut(f"{tmp_path}/saved[none]"))
    assert "it has train, test" in caught.value.hint


def test_values_that_differ_from_row_to_row_come_back(tmp_path):
    rows = [{"prompt": "p", "completion": "c", "meta": meta} for meta in ({"a": 1}, {"b": ["x", {"c": None}]})]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    found = read_rows(tmp_path / "rows.json", DataConfig(loader_type="hf"))
    assert [row.meta for row in found] == [{"a": 1}, {"b": ["x", {}]}]


def test_local_tables_leave_nothing_in_a_cache(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "rows.json").write_text(json.dumps([{"prompt": "p", "completion": "c"}]))
    assert len(list(read_rows(tmp_path / "rows.json", DataConfig(loader_type="hf")))) == 1
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.parquet", b"PAR1 and no more", "cannot be read"),
        ("a.json", b'{"prompt": ', "cannot be read"),
        ("a.parquet", b"version https://git-lfs.github.com/spec/v1\n", "a git-lfs pointer"),
        ("a.json", b"\n<!DOCTYPE html>", "a web page or XML, not a table"),
        ("a.json", b"", "no rows"),
        ("a.json", b"null", "neither objects nor an array"),
        ("a.csv", b"prompt,completion\na,b,c\nd,e\n", "a.csv:2: more cells than columns"),
        ("a.csv", b"prompt,completion\na,b\nc\n", "a.csv:3: fewer cells than columns"),
        ("a.csv", b"prompt,completion\n\xff,b\n", "not CSV in UTF-8"),
        ("a.txt", b"x", "the hf loader reads .parquet"),
    ],
)
def test_tables_that_are_none_are_refused(tmp_path, name, content, told):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=told) as caught:
        checked_and_read(DataConfig(loader_type="hf", train_path=str(path)))
    assert caught.value.hint


def test_an_error_of_the_library_is_told_once(tmp_path):
    (tmp_path / "a.json").write_text('{"prompt": ')
    with pytest.raises(DataError):
        checked_and_read(DataConfig(loader_type="hf", train_path=str(tmp_path / "a.json")))
    assert not logging.getLogger("datasets").isEnabledFor(logging.ERROR)


def test_a_clone_without_its_data_is_told(tmp_path):
    (tmp_path / "train.parquet").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(DataError, match=r"train\.parquet: a git-lfs pointer"):
        checked_and_read(DataConfig(loader_type="hf", train_path=str(tmp_path)))


def test_a_column_of_csv_may_have_no_name(tmp_path):
    """As pandas writes its index."""
    (tmp_path / "rows.csv").write_text(",prompt,completion\n0,1+1=?,2\n")
    (row,) = read_rows(tmp_path / "rows.csv", DataConfig(loader_type="hf"))
    assert (row.prompt, row.completion) == ("1+1=?", "2")


def checked_and_read(data: DataConfig):
    loader = loader_for(data)
    for path in loader.sources().values():
        loader.check(path)
        list(read_rows(path, data))


def test_a_misspelled_column_is_told_before_any_row(tmp_path):
    (tmp_path / "rows.json").write_text(json.dumps(TABLE))
    (tmp_path / "rows.csv").write_text("question,answer\na,b\n")
    for name in ("rows.json", "rows.csv"):
        with pytest.raises(DataError, match="no column 'questoin'") as caught:
            list(read_rows(tmp_path / name, DataConfig(loader_type="hf", columns={"questoin": "prompt"})))
        assert "question, answer" in caught.value.hint


def test_the_hub_is_decided_by_name_and_commit_alone():
    data = DataConfig(loader_type="hf", hf_name="someone/problems", hf_revision="0" * 40, hf_val_split="test")
    assert loader_for(data).sources() == {"train": "someone/problems[train]", "val": "someone/problems[test]"}
    assert data_files(data) == {}


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"loader_type": "hf", "hf_name": "a/b"}, "data.hf_name and data.hf_revision"),
        ({"hf_name": "a/b", "hf_revision": "0" * 40}, "data.loader_type and data.hf_name"),
        ({"loader_type": "hf", "train_path": "d", "hf_val_split": "t", "val_fraction": 0.1}, "data.hf_val_split"),
        ({"columns": {"q": "promt"}}, "'promt' is no field of a row"),
        ({"columns": {"q": "prompt", "r": "prompt"}}, "both become prompt"),
    ],
)
def test_settings_that_exclude_each_other_are_named(settings, told):
    with pytest.raises(ValidationError, match=told):
        ExperimentConfig(data=DataConfig(**settings))


def test_a_data_set_on_the_hub_needs_no_path():
    hub = DataConfig(loader_type="hf", hf_name="a/b", hf_revision="0" * 40, columns={"x": "meta.y"})
    assert ExperimentConfig(data=hub).data == hub
