"""Laws of what users write: rows survive their file whatever they hold, and no value of any key crashes the loader."""

import json

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pipelines.config import DataConfig, ExperimentConfig
from pipelines.config.fields import dotted, inside_list, walk
from pipelines.config.loader import resolve
from pipelines.config.values import leaves
from pipelines.config.yaml_writer import as_yaml
from pipelines.errors import ConfigError, DataError, GrpoError
from pipelines.rows.records import from_json, is_blank, parse, to_json
from pipelines.rows.sources import read_rows

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
visible = texts.filter(lambda text: not is_blank(text))
numbers = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
messages = st.lists(st.fixed_dictionaries({"role": st.sampled_from(["user", "tool"]), "content": visible}), min_size=1)
records = st.fixed_dictionaries(
    {"prompt": visible | messages, "completion": st.none() | visible},
    optional={"system": visible, "meta": st.dictionaries(texts, values, max_size=3), "note": values},
)
fields = st.sampled_from(["prompt", "completion", "system", "test_cases", "meta", "note"])
keys = st.sampled_from([key.path for key in walk(ExperimentConfig) if not inside_list(ExperimentConfig, key.path)])


def read(path):
    return list(read_rows(path, DataConfig()))


def attempted(function, *arguments):
    """What a call returns, or the error of ours that it raises."""
    try:
        return function(*arguments)
    except GrpoError as error:
        return error


def asks(record) -> bool:
    prompt = record["prompt"]
    return isinstance(prompt, str) or any(message["role"] == "user" for message in prompt)


@settings(max_examples=40)
@given(
    rows=st.lists(records.filter(asks), min_size=1, max_size=5),
    escaped=st.booleans(),
    end=st.sampled_from(["\n", "\r\n"]),
)
def test_rows_come_back_from_a_file_one_a_line(tmp_path_factory, rows, escaped, end):
    path = tmp_path_factory.getbasetemp() / "laws.jsonl"
    path.write_bytes("".join(json.dumps(row, ensure_ascii=escaped) + end for row in rows).encode())
    found = read(path)
    assert [row.source for row in found] == [f"{path}:{number}" for number in range(1, len(rows) + 1)]
    for row, record in zip(found, rows, strict=True):
        assert (row.prompt, row.completion) == (record["prompt"], record["completion"])
        assert (row.system, row.meta) == (record.get("system"), record.get("meta") or {})
        assert from_json(parse(to_json(row))) == row


@settings(max_examples=40)
@given(rows=st.lists(records.filter(asks), min_size=1, max_size=3), field=fields, value=values, data=st.data())
def test_a_changed_field_is_accepted_or_named_with_its_line(tmp_path_factory, rows, field, value, data):
    path = tmp_path_factory.getbasetemp() / "laws.jsonl"
    number = data.draw(st.integers(1, len(rows)))
    rows[number - 1] = {**rows[number - 1], field: value}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = attempted(read, path)
    if isinstance(found, DataError):
        assert found.message.startswith(f"{path}:{number}: {field}")
        assert found.hint
    else:
        assert len(found) == len(rows)


@settings(max_examples=40)
@given(
    content=st.binary(max_size=200) | st.lists(st.sampled_from([b"{", b"}", b'"', b":", b"\n", b"\xff"])).map(b"".join)
)
def test_any_bytes_are_rows_or_an_error_with_the_file(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "laws.jsonl"
    path.write_bytes(content)
    found = attempted(read, path)
    if isinstance(found, GrpoError):
        assert isinstance(found, DataError)
        assert found.message.startswith(f"{path}:")
    else:
        assert found


@settings(max_examples=100)
@given(path=keys, value=values)
def test_any_value_of_any_key_is_kept_or_refused_by_name(path, value):
    """Kept: what comes out is what was written, wherever it was written."""
    loaded = attempted(resolve, [], [f"{dotted(path)}={as_yaml(value)}"], {})
    if isinstance(loaded, ConfigError):
        assert path[-1] in loaded.message or path[0] in loaded.message
        assert "--set" in loaded.message
        return
    found = dict(leaves(loaded.config.model_dump(mode="json")))
    for leaf, written in leaves(value, path):
        assert found.get(leaf, written) == written
        assert loaded.origins.get(dotted(leaf), "--set") == "--set"


@given(path=keys, word=st.sampled_from(["", "s", "_", "x"]), name=texts)
def test_a_key_that_is_none_is_refused_by_name(path, word, name):
    unknown = (*path[:-1], path[-1] + word + name)
    assume(unknown != path and not any(mark in unknown[-1] for mark in ".=\0") and unknown[-1].strip() == unknown[-1])
    assume(unknown not in {key.path for key in walk(ExperimentConfig)} and not unknown[-1].isdecimal())
    error = attempted(resolve, [], [f"{'.'.join(unknown)}=1"], {})
    assert isinstance(error, ConfigError)
    assert f"{dotted(unknown)}: unknown key" in error.message or "is missing" in error.message
    assert error.hint
