"""gsm8k: the two readings, as lm-evaluation-harness has them, and the three ways to ask."""

import json
from types import SimpleNamespace

import pytest

from pipelines.config import ExperimentConfig
from pipelines.errors import ConfigError, DataError
from pipelines.evaluation.base import Sources
from pipelines.evaluation.gsm8k import INSTRUCTION, Gsm8k
from pipelines.evaluation.gsm8k_examples import EXAMPLES
from pipelines.evaluation.registry import EvaluatorRegistry
from pipelines.models.load import load_tokenizer
from pipelines.models.tiny import write_blank
from pipelines.rewards import RewardContext

ROWS = [
    {"question": f"What is {i} + 1?", "answer": f"Count on: <<{i}+1={i + 1}>>{i + 1}\n#### {i + 1}"} for i in range(5)
]


def verdict(answer, number="18", **settings):
    return Gsm8k(settings).verdict(RewardContext(generated_text=answer, meta={"number": number}))


@pytest.mark.parametrize(
    ("answer", "number", "strict", "lenient", "extracted"),
    [
        ("9 * 2 = 18\n#### 18", "18", True, True, "18"),
        ("#### $18", "18", False, True, None),
        ("#### 1,800.", "1800", True, True, "1,800."),
        ("#### 18\n#### 19", "18", True, False, "18"),
        ("#### 18 and then 7 more", "18", True, False, "18"),
        ("it costs $18", "18", False, True, None),
        ("#### -3", "-3", True, True, "-3"),
        ("#### 18.00", "18", False, False, "18.00"),
        ("no number at all", "18", False, False, None),
        ("", "18", False, False, None),
        ("<think>#### 18</think>#### 20", "18", False, False, "20"),
        ("#### 5", "1,005", False, False, "5"),
    ],
)
def test_strict_and_lenient(answer, number, strict, lenient, extracted):
    found = verdict(answer, number)
    assert (found.correct, found.also, found.extracted) == (strict, {"lenient": float(lenient)}, extracted)


def test_with_the_papers_examples_strict_reads_their_sentence():
    assert verdict("So 9 * 2 = 18. The answer is 18.", few_shot=8).correct
    assert verdict("So 9 * 2 = 18. The answer is $18.", few_shot=8).correct is False
    assert verdict("#### 18", few_shot=8).correct is False
    # The harness's pattern wants a character behind the number: without a full stop it reads one digit less.
    assert verdict("The answer is 18", few_shot=8).extracted == "1"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    directory = tmp_path_factory.mktemp("models") / "blank"
    write_blank(directory)
    return load_tokenizer(str(directory))


@pytest.fixture
def asked(tmp_path, tokenizer):
    """A function from settings to the prompts of the file."""
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))

    def items(seed=0, **settings):
        config = ExperimentConfig.model_validate({"trainer": {"seed": seed}})
        evaluator = Gsm8k({"path": str(tmp_path / "rows.jsonl"), **settings})
        return evaluator.items(Sources(tokenizer, config, lambda: pytest.fail("the items come from a file")))

    return items


def test_zero_shot_chat(asked):
    prompt = asked(system_prompt="Be brief.")[2]
    assert prompt.row.prompt == [{"role": "user", "content": f"What is 2 + 1?\n\n{INSTRUCTION}"}]
    assert (prompt.row.system, prompt.row.meta, prompt.index) == ("Be brief.", {"number": "3"}, 2)


def test_the_papers_eight_examples_as_turns_and_as_text(asked):
    messages = asked(few_shot=8)[0].row.prompt
    assert [message["role"] for message in messages] == ["user", "assistant"] * 8 + ["user"]
    assert messages[1]["content"].endswith("The answer is 6.")
    assert messages[-1]["content"] == "What is 0 + 1?"
    text = asked(few_shot=2, chat=False)[0].row.prompt
    assert text == "\n\n".join([*(f"Q: {q}\nA: {a}" for q, a in EXAMPLES[:2]), "Q: What is 0 + 1?\nA:"])


def test_plain_text_has_no_template_around_it(asked, tokenizer):
    assert tokenizer.decode(list(asked(chat=False)[0].tokens)) == "Question: What is 0 + 1?\nAnswer:"


def test_examples_of_a_file_are_drawn_by_the_seed_and_never_the_item_itself(asked, tmp_path):
    settings = {"few_shot": 2, "few_shot_path": str(tmp_path / "rows.jsonl")}
    drawn = [asked(**settings), asked(**settings), asked(seed=1, **settings)]
    shown = [[[message["content"] for message in prompt.row.prompt] for prompt in prompts] for prompts in drawn]
    assert shown[0] == shown[1] != shown[2]
    for contents in shown[0]:
        assert len(contents) == 5
        assert contents[-1] not in contents[:-1]
    answers = {row["question"]: row["answer"] for row in ROWS}
    assert shown[0][0][1] == answers[shown[0][0][0]]


def test_plain_answers_end_where_the_next_question_begins():
    assert Gsm8k().stops == ()
    assert Gsm8k({"chat": False}).stops[0] == "Question:"
    assert Gsm8k({"chat": False, "few_shot": 8}).stops[0] == "Q:"
    assert Gsm8k({"chat": False, "until": ["\n"]}).stops == ["\n"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"question": "1+1?", "answer": "two"}', "rows.jsonl:1: the answer does not end with ####"),
        ('{"question": "1+1?"}', "rows.jsonl:1: no text in 'answer'"),
        ("7", "rows.jsonl:1: not an object"),
        ("", "rows.jsonl: no rows"),
    ],
)
def test_rows_that_are_none(tmp_path, line, message):
    (tmp_path / "rows.jsonl").write_text(line + "\n" if line else "")
    evaluator = Gsm8k({"path": str(tmp_path / "rows.jsonl")})
    with pytest.raises(DataError, match=message):
        evaluator.items(SimpleNamespace(config=ExperimentConfig()))


def test_a_file_of_examples_needs_their_number():
    with pytest.raises(ConfigError, match="few_shot_path: few_shot is 0, so no example is shown"):
        EvaluatorRegistry.create("gsm8k", {"few_shot_path": "rows.jsonl"})


def test_more_examples_than_there_are_need_a_file():
    with pytest.raises(ConfigError, match="few_shot is 9; give few_shot_path"):
        EvaluatorRegistry.create("gsm8k", {"few_shot": 9})
    with pytest.raises(ConfigError, match="few_shot is 1; give few_shot_path"):
        EvaluatorRegistry.create("mcq", {"few_shot": 1})
