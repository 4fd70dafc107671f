"""Benchmarks take the published files of their data sets as they are: parquet tables or JSONL, one layout each."""

import json

import pytest
from datasets import ClassLabel, Dataset, Features, Sequence, Value

from pipelines.config import ExperimentConfig
from pipelines.errors import DataError
from pipelines.evaluation.base import Sources
from pipelines.evaluation.registry import EvaluatorRegistry
from pipelines.models.load import load_tokenizer
from pipelines.rewards import RewardContext

TEXT, WHOLE, TEXTS = Value("string"), Value("int32"), Sequence(Value("string"))
LAYOUTS = {
    "openai/gsm8k": (
        "gsm8k",
        {"question": TEXT, "answer": TEXT},
        {"question": "Two hens lay 3 eggs each. How many eggs?", "answer": "They lay 2*3=<<2*3=6>>6.\n#### 6"},
    ),
    "google-research-datasets/mbpp, full": (
        "mbpp",
        {
            "task_id": WHOLE,
            "text": TEXT,
            "code": TEXT,
            "test_list": TEXTS,
            "test_setup_code": TEXT,
            "challenge_test_list": TEXTS,
        },
        {
            "task_id": 11,
            "text": "Write a python function to drop the first and last character.",
            "code": "def drop(s): \r\n    return s[1:-1] ",
            "test_list": ['assert drop("hello") == "ell"', 'assert drop("ab") == ""'],
            "test_setup_code": "",
            "challenge_test_list": [],
        },
    ),
    "google-research-datasets/mbpp, sanitized": (
        "mbpp",
        {
            "source_file": TEXT,
            "task_id": WHOLE,
            "prompt": TEXT,
            "code": TEXT,
            "test_imports": TEXTS,
            "test_list": TEXTS,
        },
        {
            "source_file": "Benchmark Questions Verification V2.ipynb",
            "task_id": 82,
            "prompt": "Write a function to find the volume of a unit ball.",
            "code": "import math\ndef volume():\n  return 4 / 3 * math.pi",
            "test_imports": ["import math"],
            "test_list": ["assert math.isclose(volume(), 4.1887902047863905)"],
        },
    ),
    "allenai/ai2_arc": (
        "mcq",
        {"id": TEXT, "question": TEXT, "choices": Sequence({"text": TEXT, "label": TEXT}), "answerKey": TEXT},
        {
            "id": "MCAS_2000_4_6",
            "question": "Which one shines by itself?",
            "choices": {"text": ["the moon", "Mars", "the sun", "a comet"], "label": ["1", "2", "3", "4"]},
            "answerKey": "3",
        },
    ),
    "cais/mmlu": (
        "mcq",
        {"question": TEXT, "subject": TEXT, "choices": TEXTS, "answer": ClassLabel(names=["A", "B", "C", "D"])},
        {"question": "What is 2 plus 2?", "subject": "arithmetic", "choices": ["0", "4", "2", "6"], "answer": 1},
    ),
    "openai/openai_humaneval": (
        "human_eval",
        {"task_id": TEXT, "prompt": TEXT, "canonical_solution": TEXT, "test": TEXT, "entry_point": TEXT},
        {
            "task_id": "HumanEval/0",
            "prompt": 'def twice(n: int) -> int:\n    """ Two times n. """\n',
            "canonical_solution": "    return 2 * n\n",
            "test": "\n\nMETADATA = {}\n\n\ndef check(candidate):\n    assert candidate(2) == 4\n",
            "entry_point": "twice",
        },
    ),
}


@pytest.fixture(scope="module")
def sources():
    return Sources(load_tokenizer("builtin:tiny"), ExperimentConfig(), lambda: pytest.fail("items come from a file"))


def evaluator_of(name, path, **settings):
    return EvaluatorRegistry.create(name, {"path": str(path), **settings})


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_a_published_file_is_asked_and_its_own_solution_is_right(tmp_path, monkeypatch, sources, layout, form):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    name, features, row = LAYOUTS[layout]
    table, path = Dataset.from_list([row], features=Features(features)), tmp_path / f"test.{form}"
    table.to_parquet(path) if form == "parquet" else table.to_json(path)
    evaluator = evaluator_of(name, path)
    [prompt] = evaluator.items(sources)
    asked = prompt.row
    found = evaluator.verdict(
        RewardContext(generated_text=asked.completion, test_cases=asked.test_cases, meta=asked.meta)
    )
    assert (found.correct, found.reason) == (True, "")
    question = next(row[key] for key in ("question", "text", "prompt") if key in row)
    assert question.strip() in asked.prompt[0]["content"]


def test_examples_come_from_a_table_too(tmp_path, sources):
    name, features, row = LAYOUTS["openai/gsm8k"]
    others = [row | {"question": f"{row['question']} ({n})"} for n in range(3)]
    Dataset.from_list(others, features=Features(features)).to_parquet(tmp_path / "train.parquet")
    (tmp_path / "test.jsonl").write_text(json.dumps(row))
    shown = {"few_shot": 2, "few_shot_path": str(tmp_path / "train.parquet")}
    [prompt] = evaluator_of(name, tmp_path / "test.jsonl", **shown).items(sources)
    assert [message["role"] for message in prompt.row.prompt] == ["user", "assistant"] * 2 + ["user"]


def test_a_bad_row_of_a_table_is_named_by_its_number(tmp_path, sources):
    name, features, row = LAYOUTS["openai/gsm8k"]
    Dataset.from_list([row, row | {"answer": "six"}], features=Features(features)).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"t\.parquet:2: the answer does not end with ####"):
        evaluator_of(name, tmp_path / "t.parquet").items(sources)


@pytest.mark.parametrize(("name", "content"), [("cut.parquet", b"PAR1\x15\x04"), ("none.parquet", b"")])
def test_a_table_that_cannot_be_read_is_an_error_without_keys_of_training(tmp_path, sources, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=name) as caught:
        evaluator_of("gsm8k", tmp_path / name).items(sources)
    assert "data." not in caught.value.hint
