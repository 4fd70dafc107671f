"""Laws of generated tasks: all rows different, none in both splits, the same again, right by another computation."""

import ast
import json
import operator
import re
from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.config import SyntheticConfig
from pipelines.rewards import RewardContext, RewardRegistry, split_regions
from pipelines.rows.records import parse, row_from, to_json
from pipelines.rows.synthetic.registry import TASKS, generate

OPTIONS = {
    "countdown": st.fixed_dictionaries({}, optional={"largest": st.integers(10, 100), "use_all": st.booleans()}),
    "list_sorting": st.fixed_dictionaries(
        {}, optional={"order": st.sampled_from(["ascending", "descending", "either"]), "largest": st.integers(9, 9999)}
    ),
    "mcq": st.fixed_dictionaries({}, optional={"choices": st.integers(2, 10)}),
}
CHECKED_BY = {
    "arithmetic": "exact_match",
    "countdown": "countdown",
    "letter_counting": "exact_match",
    "list_sorting": "exact_match",
    "string_reversal": "exact_match",
    "mcq": "mcq_accuracy",
}
OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


@st.composite
def sections(draw, task):
    return SyntheticConfig(
        task=task,
        train_rows=draw(st.integers(1, 40)),
        val_rows=draw(st.integers(0, 20)),
        difficulty=draw(st.integers(1, TASKS[task].hardest)),
        seed=draw(st.integers(0, 2**40)),
        options=draw(OPTIONS.get(task, st.just({}))),
    )


def rows(section):
    return {split: list(found) for split, found in generate(section).items()}


def value(expression):
    """Exact, by Python's own parser."""

    def of(node):
        if isinstance(node, ast.BinOp):
            return OPERATORS[type(node.op)](of(node.left), of(node.right))
        return Fraction(node.value)

    return of(ast.parse(expression, mode="eval").body)


def numbers(text):
    return [int(digits) for digits in re.findall(r"\d+", text)]


def arithmetic(prompt, steps):
    return str(value(prompt.removesuffix("=?")))


def letter_counting(prompt, steps):
    letter, text = re.fullmatch(r"How many times does the letter (.) occur in: ([a-z ]+)", prompt).groups()
    count, spelled = 0, []
    for character in text:
        count += character == letter
        spelled.append(", " if character == " " else f"{character}{count} ")
    assert steps == "".join(spelled).replace(" ,", ",").strip()
    return str(count)


def list_sorting(prompt, steps):
    question, given_numbers = prompt.split(": ")
    falling = question == "Sort these numbers from largest to smallest"
    assert falling or question == "Sort these numbers from smallest to largest"
    left = numbers(given_numbers)
    answer = sorted(left, reverse=falling)
    for step, taken in zip(steps.split("; "), answer, strict=True):
        left.remove(taken)
        assert numbers(step) == [taken, *left]
    return ", ".join(map(str, answer))


def string_reversal(prompt, steps):
    text = prompt.removeprefix("Write these letters in reverse order: ")
    answer = "".join(reversed(text))
    assert text != answer
    assert steps == f"{' '.join(text)}, {' '.join(answer)}"
    return answer


def mcq(prompt, steps):
    question, *options = prompt.split("\n")
    (divisor,) = numbers(question)
    given_numbers = [numbers(option)[0] for option in options]
    assert len({len(str(number)) for number in given_numbers}) == 1
    assert len(set(given_numbers)) == len(given_numbers)
    for number, step in zip(given_numbers, steps.split(", "), strict=True):
        left, right = step.split("=")
        assert int(left) == number == value(right)
    (right,) = [option[0] for option, number in zip(options, given_numbers, strict=True) if number % divisor == 0]
    return right


ANSWERS = {task.__name__: task for task in (arithmetic, letter_counting, list_sorting, string_reversal, mcq)}


def asked(task, row):
    """What makes two rows the same problem: nothing that is merely put in another order."""
    if task == "letter_counting":
        return row.meta["letter"], *sorted(row.meta["text"].split())
    if task == "mcq":
        return row.meta["divisor"], *sorted(row.meta["options"])
    if task == "arithmetic":
        left, sign, right = re.split(r"([-+*])", row.prompt.removesuffix("=?"))
        return sign, *([left, right] if sign == "-" else sorted([left, right]))
    return tuple(sorted(row.meta["numbers"])) if "numbers" in row.meta else row.prompt


def check_countdown(row, steps, answer):
    """Many answers are right; this one is a solution, and the steps lead to it."""
    meta = row.meta
    left = Counter(meta["numbers"])
    assert numbers(row.prompt)[: len(meta["numbers"])] == meta["numbers"]
    assert row.prompt.endswith(f", with + - * / ( ), to make {meta['target']}")
    assert value(answer) == meta["target"]
    used = Counter(numbers(answer))
    assert used <= left
    assert (used == left) or not meta["use_all"]
    for step in steps.split(", "):
        expression, result = step.split("=")
        assert value(expression) == int(result) > 0
        assert Counter(numbers(expression)) <= left
        left = left - Counter(numbers(expression)) + Counter([int(result)])
    assert left[meta["target"]]


def wrong(task, row, answer):
    """An answer that is not right, as near to it as can be."""
    if task == "list_sorting":
        listed = answer.split(", ")
        place = next((i for i in range(len(listed) - 1) if listed[i] != listed[i + 1]), None)
        if place is None:  # all the same: leave one out
            return ", ".join(listed[1:])
        listed[place : place + 2] = reversed(listed[place : place + 2])
        return ", ".join(listed)
    return {
        "countdown": lambda: f"{answer}+{row.meta['numbers'][0]}",
        "string_reversal": lambda: row.meta["text"],
        "mcq": lambda: "B" if answer == "A" else "A",
    }.get(task, lambda: str(int(answer) + 1))()


def score(task, row, answer):
    reference = split_regions(row.completion)[1]
    context = RewardContext(prompt_text=row.prompt, answer=answer, reference_answer=reference, meta=row.meta)
    result = RewardRegistry.create(CHECKED_BY[task]).compute(context)
    return result["reward"] if isinstance(result, dict) else result


def test_every_task_has_its_laws():
    assert {name: task.checked_by for name, task in TASKS.items()} == CHECKED_BY


@pytest.mark.parametrize("task", CHECKED_BY)
@given(data=st.data())
@settings(max_examples=25)
def test_rows_are_different_right_and_checked(task, data):
    section = data.draw(sections(task))
    if task == "arithmetic" and section.difficulty == 1:
        section = section.model_copy(update={"train_rows": section.train_rows % 30 + 1})
    splits = rows(section)
    assert {split: len(found) for split, found in splits.items()} == {
        "train": section.train_rows,
        "val": section.val_rows,
    }
    everything = [*splits["train"], *splits["val"]]
    assert len({asked(task, row) for row in everything}) == len(everything)
    assert rows(section) == splits
    for row in everything[:10]:
        thinking, answer = re.fullmatch(r"<think>(.+)</think>(.+)", row.completion).groups()
        if task == "countdown":
            check_countdown(row, thinking, answer)
        else:
            assert ANSWERS[task](row.prompt, thinking) == answer
        assert score(task, row, answer) == 1.0
        assert score(task, row, wrong(task, row, answer)) == 0.0
        assert score(task, row, row.prompt) == score(task, row, "") == 0.0
        record = parse(to_json(row))
        again = row_from(record, prompt_key="prompt", completion_key="completion", source=row.source)
        assert again == row
        assert row.prompt.isascii()
        assert json.loads(json.dumps(row.meta)) == row.meta


@pytest.mark.parametrize("task", sorted(set(CHECKED_BY) - {"arithmetic"}))
@given(data=st.data())
@settings(max_examples=8)
def test_what_is_asked_for_in_train_leaves_val_alone(task, data):
    """And a shorter split is the beginning of a longer one."""
    section = data.draw(sections(task))
    longer = section.model_copy(update={"train_rows": section.train_rows + 7})
    first, second = rows(section), rows(longer)
    assert second["val"] == first["val"]
    assert second["train"][: section.train_rows] == first["train"]
