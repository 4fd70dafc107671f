"""stdout is data, stderr is everything else, and JSON is strict."""

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpo_cli.options import benchmark_names
from grpo_cli.output import Output, cell, to_json
from pipelines.config import LossConfig

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


class Pair(NamedTuple):
    a: int
    b: int | None


@dataclass
class Result:
    stage: str
    directory: Path
    status: str
    reasons: list[str]
    seconds: float
    summary: dict


RESULT = Result("preprocess", Path("a/b"), "ran", ["data.limit: null -> 5"], 1.25, {"rows": 5, "share": 0.123456})


@given(values)
def test_json_is_strict_whatever_comes_in(value):
    def refuse(constant: str):
        raise AssertionError(constant)

    json.loads(to_json(value), parse_constant=refuse)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists))
def test_plain_data_survives_json(value):
    assert json.loads(to_json(value)) == value


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (float("nan"), "null"),
        (np.float32(0.5), "0.5"),
        (np.array([1, 2]), "[1, 2]"),
        (Path("a/b"), '"a/b"'),
        (Pair(1, None), '{"a": 1, "b": null}'),
        ({"é": (1, {2})}, '{"é": [1, [2]]}'),
    ],
)
def test_json_of_what_commands_hold(value, expected):
    assert to_json(value) == expected


def test_json_of_a_configuration_section():
    assert json.loads(to_json(LossConfig()))["type"] == "dapo"


def test_json_refuses_what_has_no_form():
    with pytest.raises(TypeError, match="object has no JSON form"):
        to_json(object())


def test_a_list_is_one_line_an_item(capsys):
    Output(json=True).data([{"row": 0}, {"row": 1}])
    assert capsys.readouterr().out == '{"row": 0}\n{"row": 1}\n'


def test_a_table_for_programs_is_keyed_by_column(capsys):
    Output(json=True).table("rows", ["name", "mean"], [("a", 0.5), ("b", float("nan"))])
    assert capsys.readouterr().out == '{"name": "a", "mean": 0.5}\n{"name": "b", "mean": null}\n'


def test_a_table_in_a_pipe_is_aligned_and_whole(capsys):
    long = "x" * 200
    Output().table("rewards", ["name", "mean"], [(long, 1.0), ("[b]", 0.123456)])
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["rewards", f"{'name':<200}    mean", f"{long}       1", f"{'[b]':<200}  0.1235"]


def test_a_table_on_a_terminal_has_no_frame_that_words_would_be_broken_for(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "50")
    monkeypatch.setenv("NO_COLOR", "1")
    Output().table("", ["benchmark", "model", "accuracy %"], [["exact_match", "step_000006_of_a_long_run", 69.6]])
    assert re.sub(r"\x1b\[\dm", "", capsys.readouterr().out).splitlines() == [
        "benchmark    model                      accuracy %",
        "exact_match  step_000006_of_a_long_run        69.6",
    ]


def test_notes_and_warnings_leave_stdout_alone(capsys):
    out = Output()
    out.note("working")
    out.detail("unseen without -v")
    out.warn("odd")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "working\nwarning: odd\n")


def test_quiet_keeps_data_and_warnings(capsys):
    out = Output(quiet=True, verbose=1)
    out.note("working")
    out.warn("odd")
    out.data("42")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("42\n", "warning: odd\n")


def test_a_stage_for_people(capsys):
    Output().stage(RESULT)
    captured = capsys.readouterr()
    assert captured.out == "preprocess  ran  1.2 s  a/b\n  rows: 5\n  share: 0.1235\n"


def test_the_seconds_of_a_stage_that_did_not_run_now_are_not_told(capsys):
    Output().stage(replace(RESULT, status="cached", summary={"sandbox": {"level": "strong", "layers": 2}}))
    assert capsys.readouterr().out == "preprocess  cached  a/b\n  sandbox\n    level: strong\n    layers: 2\n"


def test_a_stage_for_programs(capsys):
    Output(json=True, quiet=True).stage(RESULT)
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {
        "stage": "preprocess",
        "directory": "a/b",
        "status": "ran",
        "reasons": ["data.limit: null -> 5"],
        "seconds": 1.25,
        "summary": {"rows": 5, "share": 0.123456},
    }
    assert captured.err == ""


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "-"),
        (float("nan"), "-"),
        (True, "yes"),
        (3, "3"),
        (0.000012345, "1.234e-05"),
        (-0.0, "0"),
        (-0.5, "-0.5"),
    ],
)
def test_cells(value, shown):
    assert cell(value) == shown


@pytest.mark.parametrize(
    ("named", "more"), [(["a", "b"], None), (["a"], ["b"]), (["a b"], None), (["a,b"], []), (["a", "b"], ["a"])]
)
def test_benchmarks_repeated_or_space_separated(named, more):
    assert benchmark_names(named, more) == ["a", "b"]


def test_no_benchmarks():
    assert benchmark_names(None, None) == []
