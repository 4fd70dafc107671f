"""Ragged arrays and data sets on disk: dtypes, plain NumPy layout, empty rows, damage."""

import json
from contextlib import closing

import numpy as np
import pytest

from pipelines.errors import DataError
from pipelines.rows.blocks import token_dtype
from pipelines.rows.records import Row
from pipelines.tokens.arrays import RaggedArray, RaggedWriter, write_ragged
from pipelines.tokens.dataset import FILES, SplitWriter, TokenDataset
from pipelines.tokens.export import export_split
from pipelines.tokens.lengths import longer_than, summarise


def write_split(directory, rows, split="train"):
    with closing(SplitWriter(directory, split, np.dtype(np.uint16))) as writer:
        for row, prompt, completion, preopened in rows:
            writer.append(row, prompt, completion, preopened=preopened)


SPLIT = [
    (Row("\u4e2d\u2028", "a", meta={"k": [1]}, source="train:1"), [1, 2, 3], [4, 5], False),
    (Row("q", None, test_cases=("assert f()",), source="train:2"), [6], [], True),
    (Row([{"role": "user", "content": "x"}], "b", system="s", source="train:3"), [7] * 30, [8], False),
]


@pytest.mark.parametrize(("size", "dtype"), [(10, "uint16"), (65_536, "uint16"), (65_537, "int32"), (250_000, "int32")])
def test_dtype_follows_the_vocabulary(size, dtype):
    assert token_dtype(size) == dtype


def test_files_are_flat_arrays_that_numpy_reads(tmp_path):
    write_ragged(tmp_path / "train_prompts", [[1, 2], [], [65_535]], np.uint16)
    tokens = np.load(tmp_path / "train_prompts.npy")
    offsets = np.load(tmp_path / "train_prompts_offsets.npy")
    assert (tokens.dtype, tokens.tolist()) == (np.uint16, [1, 2, 65_535])
    assert (offsets.dtype, offsets.tolist()) == (np.int64, [0, 2, 2, 3])


def test_rows_come_back_as_int32_copies(tmp_path):
    write_ragged(tmp_path / "x", [[1, 2], []], np.uint16)
    array = RaggedArray(tmp_path / "x")
    row = array[0]
    row[0] = 9
    assert row.dtype == np.int32
    assert [each.tolist() for each in array] == [[1, 2], []]
    assert isinstance(array.tokens, np.memmap)
    with pytest.raises(IndexError):
        array[2]
    with pytest.raises(IndexError):
        array[-1]


def test_an_id_that_does_not_fit_never_wraps(tmp_path):
    with pytest.raises(OverflowError):
        write_ragged(tmp_path / "x", [[65_536]], np.uint16)


def test_a_writer_that_was_not_closed_leaves_no_rows(tmp_path):
    writer = RaggedWriter(tmp_path / "x", np.dtype(np.int32))
    writer.append([1] * 200_000)
    with pytest.raises(DataError):
        RaggedArray(tmp_path / "x")
    writer.close()
    assert len(RaggedArray(tmp_path / "x")[0]) == 200_000


def test_data_set_gives_back_what_was_written(tmp_path):
    write_split(tmp_path, SPLIT)
    dataset = TokenDataset(tmp_path, "train")
    assert len(dataset) == 3
    for index, (row, prompt, completion, preopened) in enumerate(SPLIT):
        assert dataset.row(index) == row
        assert dataset.prompt_tokens(index).tolist() == prompt
        assert dataset.completion_tokens(index).tolist() == completion
        assert dataset.preopened(index) is preopened
    with pytest.raises(IndexError):
        dataset.row(3)
    assert {path.name for path in tmp_path.iterdir()} == {f"train_{name}" for name in FILES}
    lines = (tmp_path / "train_rows.jsonl").read_bytes().split(b"\n")
    assert json.loads(lines[0])["prompt"] == "\u4e2d\u2028"


def test_an_empty_split_is_a_data_set_of_no_rows(tmp_path):
    write_split(tmp_path, [], "val")
    dataset = TokenDataset(tmp_path, "val")
    assert len(dataset) == 0
    assert summarise(dataset) == {"prompt_tokens": {}, "completion_tokens": {}}


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".npy")])
def test_damage_is_told_with_the_file(tmp_path, name):
    write_split(tmp_path, SPLIT)
    path = tmp_path / f"train_{name}"
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(DataError, match=str(path)) as caught:
        TokenDataset(tmp_path, "train").row(0)
    assert "--force" in caught.value.hint


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_told(tmp_path, name):
    write_split(tmp_path, SPLIT)
    (tmp_path / f"train_{name}").unlink()
    with pytest.raises(DataError, match=name):
        TokenDataset(tmp_path, "train").row(0)


def test_arrays_of_something_else_are_refused(tmp_path):
    write_split(tmp_path, SPLIT)
    np.save(tmp_path / "train_prompts.npy", np.zeros(34))
    with pytest.raises(DataError, match="float64"):
        TokenDataset(tmp_path, "train")


def test_offsets_of_another_file_are_refused(tmp_path):
    write_ragged(tmp_path / "x", [[1, 2, 3]])
    write_ragged(tmp_path / "y", [[1, 2]])
    (tmp_path / "y_offsets.npy").replace(tmp_path / "x_offsets.npy")
    with pytest.raises(DataError, match="do not fit"):
        RaggedArray(tmp_path / "x")


def test_lengths_are_counted(tmp_path):
    write_split(tmp_path, SPLIT)
    dataset = TokenDataset(tmp_path, "train")
    found = summarise(dataset)
    prompts, completions = found["prompt_tokens"], found["completion_tokens"]
    assert (prompts["min"], prompts["p50"], prompts["max"], prompts["mean"]) == (1, 3, 30, 11.3)
    assert prompts["longest"][0] == {"source": "train:3", "tokens": 30}
    assert sum(each["rows"] for each in prompts["histogram"]) == 3
    assert prompts["histogram"][0] == {"from": 1, "to": 3, "rows": 2}
    assert (completions["min"], completions["max"]) == (1, 2)
    assert [longer_than(dataset, most) for most in (0, 1, 2)] == [2, 1, 0]


def test_an_exported_split_is_the_same_data(tmp_path):
    write_split(tmp_path, SPLIT)
    written = export_split(tmp_path, "train", tmp_path / "new" / "my.data")
    assert {path.name for path in written} == {f"my.data_{name}" for name in FILES}
    assert set((tmp_path / "new").iterdir()) == set(written)
    copy = TokenDataset(tmp_path / "new", "my.data")
    assert [copy.row(i) for i in range(3)] == [row for row, *_ in SPLIT]
