"""Files as users have them: what is accepted, and where and why the rest is refused."""

import codecs
import gzip
import json
import os
from collections import Counter

import pytest

from pipelines.bundled import bundled
from pipelines.config import DataConfig, SyntheticConfig
from pipelines.errors import DataError
from pipelines.rows.loaders.registry import loader_for
from pipelines.rows.records import BadRowError, Row, row_from
from pipelines.rows.sources import ReadReport, check_sources, read_rows, split_of, usable

GOOD = b'{"prompt": "2+2=?", "completion": "4"}\n'


def write(tmp_path, content: bytes, name: str = "rows.jsonl"):
    path = tmp_path / name
    path.write_bytes(content)
    return path


def read(path, **settings) -> list[Row]:
    return list(read_rows(path, DataConfig(**settings)))


def split_rows(data: DataConfig):
    """Every row of every source, with its split."""
    loader = loader_for(data)
    for origin, path in loader.sources().items():
        for chunk in loader.cut(path):
            for row in usable(loader.rows(chunk), data, ReadReport()):
                yield split_of(row, origin, data), row


def prompts(path, **settings) -> list:
    return [row.prompt for row in read(path, **settings)]


def test_a_row_with_everything(tmp_path):
    record = {
        "prompt": [{"role": "user", "content": "f?"}],
        "completion": "c",
        "system": "s",
        "test_cases": ["assert f(1) == 2", {"input": [1], "expected": 2}],
        "meta": {"options": ["a", "b"], "correct_index": 1},
        "ignored": [1, 2],
    }
    path = write(tmp_path, json.dumps(record).encode() + b"\n")
    (row,) = read(path)
    assert row == Row(
        prompt=record["prompt"],
        completion="c",
        system="s",
        test_cases=tuple(record["test_cases"]),
        meta=record["meta"],
        source=f"{path}:1",
    )
    assert row.is_code
    assert row.is_mcq


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(codecs.BOM_UTF8 + GOOD, id="byte order mark"),
        pytest.param(GOOD.replace(b"\n", b"\r\n"), id="CRLF"),
        pytest.param(GOOD.rstrip(), id="no newline at the end"),
        pytest.param(b"\n  \n" + GOOD + b"\n\r\n", id="blank lines"),
        pytest.param(gzip.compress(GOOD), id="gzip whatever the name"),
    ],
)
def test_accepted_shapes_of_a_file(tmp_path, content):
    assert prompts(write(tmp_path, content)) == ["2+2=?"]


def test_gzip_name_without_gzip_content(tmp_path):
    assert prompts(write(tmp_path, GOOD, "rows.jsonl.gz")) == ["2+2=?"]


@pytest.mark.parametrize("inside", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c"])
def test_only_newline_bytes_split_rows(tmp_path, inside):
    text = f"a{inside}b"
    raw = json.dumps({"prompt": text, "completion": "c"}, ensure_ascii=ord(inside) < 32)
    assert prompts(write(tmp_path, raw.encode() + b"\n" + GOOD)) == [text, "2+2=?"]


def test_line_numbers_count_blank_lines(tmp_path):
    path = write(tmp_path, b"\n" + GOOD + b"\n" + GOOD)
    assert [row.source for row in read(path)] == [f"{path}:2", f"{path}:4"]


def test_a_very_long_line_is_only_a_long_row(tmp_path):
    line = json.dumps({"prompt": "x" * 5_000_000, "completion": "y"}).encode()
    assert len(prompts(write(tmp_path, line))[0]) == 5_000_000


BAD_LINES = [
    (b"[1, 2]", "not an object but a list"),
    (b'"text"', "not an object but a text"),
    (b"prompt,completion", "not JSON"),
    (b'{"prompt": "a", "completion": "b"} {"prompt": "c"}', "more than one value in the line"),
    (b'{"prompt": "a", "completion": ', "not JSON"),
    (b"{'prompt': 'a'}", "not JSON"),
    (b"{}", "no field 'prompt'; the row has no fields"),
    (b'{"question": "a", "completion": "b"}', "no field 'prompt'; the row has 'question', 'completion'"),
    (b'{"prompt": "a"}', "no field 'completion'"),
    (b'{"prompt": "", "completion": "b"}', "prompt is blank"),
    (b'{"prompt": " \\n", "completion": "b"}', "prompt is blank"),
    (b'{"prompt": null, "completion": "b"}', "prompt is null"),
    (b'{"prompt": 3, "completion": "b"}', "prompt is a number"),
    (b'{"prompt": {"text": "a"}, "completion": "b"}', "prompt is an object"),
    (b'{"prompt": [], "completion": "b"}', "prompt has no user message"),
    (b'{"prompt": ["a"], "completion": "b"}', r"prompt\[0\] is a text"),
    (b'{"prompt": [{"role": "bot", "content": "a"}], "completion": "b"}', r"prompt\[0\].role is 'bot'"),
    (b'{"prompt": [{"role": [], "content": "a"}], "completion": "b"}', r"prompt\[0\].role is \[\]"),
    (b'{"prompt": [{"role": "user", "content": 1}], "completion": "b"}', r"prompt\[0\].content is a number"),
    (
        b'{"prompt": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "completion": "b"}',
        "ends with the assistant",
    ),
    (b'{"prompt": "a", "completion": 4}', "completion is a number"),
    (b'{"prompt": "a", "completion": true}', "completion is a boolean"),
    (b'{"prompt": "a", "completion": " "}', "completion is blank"),
    (b'{"prompt": "a", "completion": "b", "system": 1}', "system is a number"),
    (b'{"prompt": "a", "completion": "b", "test_cases": "assert x"}', "test_cases is a text"),
    (b'{"prompt": "a", "completion": "b", "test_cases": [{"input": 1}]}', "without input and expected"),
    (b'{"prompt": "a", "completion": "b", "test_cases": [""]}', r"test_cases\[0\] is a blank text"),
    (b'{"prompt": "a", "completion": "b", "meta": []}', "meta is a list"),
    (b'{"prompt": "a", "completion": "b", "meta": {"x": NaN}}', "NaN is not JSON"),
    (b'{"prompt": "a", "completion": "b", "meta": {"x": -Infinity}}', "-Infinity is not JSON"),
    (b'{"prompt": "a", "completion": "b", "meta": {"x": 1e999}}', "the number 1e999 is too large"),
    (b'{"prompt": "a", "prompt": "b", "completion": "c"}', "the field 'prompt' stands twice"),
    (b'{"prompt": "a\\ud800", "completion": "b"}', "half of a surrogate pair"),
    (b'{"prompt": "a\x00b", "completion": "c"}', "NUL byte at character 14"),
    (b'{"prompt": "a", "completion": "b", "meta": ' + b"[" * 200_000 + b"]" * 200_000 + b"}", "nested too deeply"),
]


@pytest.mark.parametrize(("line", "reason"), BAD_LINES, ids=[reason for _, reason in BAD_LINES])
def test_bad_rows_are_refused_with_place_reason_and_hint(tmp_path, line, reason):
    path = write(tmp_path, GOOD + line + b"\n" + GOOD)
    with pytest.raises(DataError, match=f"^{path}:2: .*{reason}") as caught:
        read(path)
    assert caught.value.hint


def test_an_integer_of_thousands_of_digits_does_not_crash(tmp_path):
    line = b'{"prompt": "a", "completion": "b", "meta": {"x": ' + b"9" * 6000 + b"}}\n"
    path = write(tmp_path, line)
    with pytest.raises(DataError, match=f"^{path}:1: "):
        read(path)


def test_invalid_utf8_is_told_by_its_byte(tmp_path):
    bad = b'{"prompt": "\xff", "completion": "b"}\n'
    with pytest.raises(DataError, match=f":2: not UTF-8 at byte {len(GOOD) + 12} of the file"):
        read(write(tmp_path, GOOD + bad))


def test_a_cut_last_line_says_so(tmp_path):
    with pytest.raises(DataError, match=r":2: not JSON.*the file ends in this line"):
        read(write(tmp_path, GOOD + GOOD[:20]))


def test_escaped_pairs_of_surrogates_are_characters(tmp_path):
    line = b'{"prompt": "\\ud83d\\ude00", "completion": "b"}\n'
    assert prompts(write(tmp_path, line)) == ["\U0001f600"]


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", "a git-lfs pointer"),
        (b"\n<!DOCTYPE html>\n<html></html>", "a web page"),
        (GOOD.decode().encode("utf-16"), "UTF-16"),
        (b"PAR1\x00\x01", "a parquet file"),
        (b"PK\x03\x04zip", "a zip archive"),
        (b"\x93NUMPY\x01\x00", "a NumPy array"),
        (b"", "no rows"),
        (b"\n\n \n", "no rows"),
        (gzip.compress(GOOD * 1000, mtime=0)[:-20], "damaged or cut off"),
        (gzip.compress(GOOD, mtime=0)[:12] + b"\xff" * 30, "damaged or cut off"),
    ],
)
def test_files_that_are_something_else(tmp_path, content, what):
    path = write(tmp_path, content)
    with pytest.raises(DataError, match=rf"^{path}(:\d)?: .*{what}") as caught:
        read(path, on_bad_row="skip")
    assert caught.value.hint


def test_what_is_not_a_file(tmp_path):
    fifo, loop = tmp_path / "fifo", tmp_path / "loop"
    os.mkfifo(fifo)
    loop.symlink_to(loop)
    for path, reason in [
        (tmp_path, "a directory"),
        (fifo, "not a regular file"),
        (loop, "symbolic links"),
        (tmp_path / "absent", "No such file"),
        (tmp_path / "a\0b", "null"),
    ]:
        with pytest.raises(DataError, match=reason) as caught:
            check_sources(loader_for(DataConfig(train_path=str(path))))
        assert caught.value.hint


def test_skipped_rows_are_counted_by_reason(tmp_path):
    path = write(tmp_path, GOOD * 18 + b"{}\n[]\n")
    report = ReadReport()
    rows = list(read_rows(path, DataConfig(on_bad_row="skip"), report))
    assert (len(rows), report.read) == (18, 20)
    assert dict(report.bad) == {"no field 'prompt'; the row has no fields": 1, "not an object but a list": 1}


def test_too_many_bad_rows_are_refused_even_when_skipping(tmp_path):
    path = write(tmp_path, GOOD * 17 + b"{}\n" * 3)
    with pytest.raises(DataError, match="3 of 20 rows are bad") as caught:
        read(path, on_bad_row="skip")
    assert f"{path}:18" in caught.value.message


def test_keys_are_mapped(tmp_path):
    path = write(tmp_path, b'{"question": "q", "answer": "a"}\n')
    (row,) = read(path, prompt_key="question", completion_key="answer")
    assert (row.prompt, row.completion) == ("q", "a")


@pytest.mark.parametrize(
    "more", [b'"completion": null', b'"test_cases": ["assert f(1)"]', b'"meta": {"correct_letters": ["A"]}']
)
def test_a_completion_may_be_missing_where_something_else_judges(tmp_path, more):
    (row,) = read(write(tmp_path, b'{"prompt": "a", ' + more + b"}\n"))
    assert row.completion is None


def test_limit_stops_before_later_defects(tmp_path):
    assert len(read(write(tmp_path, GOOD * 3 + b"broken\n"), limit=3)) == 3


def test_built_in_rows_bring_their_validation_rows():
    splits = Counter(split for split, _ in split_rows(DataConfig()))
    files = {split: (bundled("arithmetic") / f"{split}.jsonl").read_bytes() for split in ("train", "val")}
    assert splits == {split: content.count(b"\n") for split, content in files.items()}


def splits_by_prompt(data: DataConfig) -> dict:
    return {row.prompt: split for split, row in split_rows(data)}


def test_val_fraction_is_stable_when_rows_come_and_go(tmp_path):
    lines = [f'{{"prompt": "p{i}", "completion": "c"}}\n'.encode() for i in range(2000)]
    first = splits_by_prompt(
        DataConfig(train_path=str(write(tmp_path, b"".join(lines), "a"))),
    )
    assert set(first.values()) == {"train"}
    whole = splits_by_prompt(DataConfig(train_path=str(tmp_path / "a"), val_fraction=0.2))
    fewer = splits_by_prompt(
        DataConfig(train_path=str(write(tmp_path, b"".join(lines[1::2][::-1]), "b")), val_fraction=0.2)
    )
    larger = splits_by_prompt(DataConfig(train_path=str(tmp_path / "a"), val_fraction=0.3))
    assert 330 < sum(split == "val" for split in whole.values()) < 470
    assert fewer == {prompt: whole[prompt] for prompt in fewer}
    assert all(larger[prompt] == "val" for prompt, split in whole.items() if split == "val")


def test_synthetic_rows_are_a_function_of_the_seed():
    def rows(seed):
        synthetic = SyntheticConfig(train_rows=30, val_rows=10, seed=seed)
        return list(split_rows(DataConfig(loader_type="synthetic", synthetic=synthetic)))

    assert rows(1) == rows(1) != rows(2)
    assert [split for split, _ in rows(1)] == ["train"] * 30 + ["val"] * 10


def row_of(**fields):
    return row_from(fields, prompt_key="prompt", completion_key="completion")


def test_numbers_of_other_tools_come_with_the_jq_that_mends_them():
    with pytest.raises(BadRowError) as caught:
        row_of(prompt="a", completion=4)
    assert """`jq -c '."completion" |= tostring' FILE > rows.jsonl`""" in caught.value.hint


def test_a_file_of_messages_is_told_the_setting_that_reads_it():
    with pytest.raises(BadRowError) as caught:
        row_of(messages=[USER, SAID])
    assert caught.value.hint == "set data.prompt_key=messages"
    row = row_from({"messages": [USER, SAID]}, prompt_key="messages", completion_key="completion")
    assert (row.prompt, row.completion) == ([USER], "b")


USER, SAID = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}


@pytest.mark.parametrize(
    ("fields", "prompt"),
    [
        ({"prompt": "a", "completion": [SAID]}, "a"),
        ({"prompt": [USER], "completion": [SAID]}, [USER]),
        ({"prompt": [USER, SAID]}, [USER]),
        ({"prompt": [USER, SAID], "completion": None}, [USER]),
        ({"prompt": [USER, SAID, USER, SAID]}, [USER, SAID, USER]),
    ],
    ids=["a message", "messages", "a conversation", "null beside it", "several turns"],
)
def test_what_the_assistant_says_last_is_the_completion(fields, prompt):
    row = row_of(**fields)
    assert (row.prompt, row.completion) == (prompt, "b")
