"""Every reward on the texts that break rewards: empty, short, misused tags, no reference, any script, bytes, 5 MB.

One table a reward: (context, value), None where the reward abstains. Lengths here are in words unless they are given.
"""

import time

import pytest

from pipelines.rewards import RewardContext, RewardRegistry

CONFIGS = {
    "format_structure": {"min_think_length": 2, "think_length_target_min": 4, "think_length_target_max": 6},
    "thinking_quality": {"target_length_min": 2, "target_length_max": 4, "excessive_length_threshold": 8},
    "length_penalty": {"target_length": 4, "max_length": 8, "min_length": 2},
    "soft_overlong": {"max_length": 8, "cache_length": 4},
}


def text(generated, **fields):
    return RewardContext(generated_text=generated, **fields)


def against(generated, reference, **fields):
    return text(generated, reference_answer=reference, **fields)


def choice(generated, **meta):
    return text(generated, meta={"options": ["a cat", "yes", "no"], "correct_letters": "B"} | meta)


def steps(generated, *required):
    return text(generated, meta={"required_steps": list(required)})


def puzzle(generated, **fields):
    return text(generated, meta={"numbers": [1, 2, 4], "target": 12}, **fields)


def program(generated, **fields):
    return text(generated, test_cases=["assert f(1) == 2"], **fields)


EXACT_MATCH = [
    (against("42", "42"), 1),
    (against("1,234", "1234.0"), 1),
    (against("$5.00", "5"), 1),
    (against("1/2", "0.5"), 1),
    (against("50%", "50 %"), 1),
    (against("50%", "50"), 1),
    (against("50%", "0.5"), 0),
    (against(r"\boxed{12}", "12"), 1),
    (against("#### 12.", "12"), 1),
    (against("", "12"), 0),
    (against(" \n", "12"), 0),
    (against("12", None), None),
    (against("12", ""), None),
    (text("12", reference_completion="<think>11"), None),
    (text("12", reference_completion="<think>6 + 6</think>12"), 1),
    (against("<think>12", "12"), 0),
    (against("<think>12</think>", "12"), 0),
    (against("<think>a<think>b</think>12", "12"), 1),
    (against("6 + 6</think>12", "12", prompt_text="What?<think>\n"), 1),
    (against("12", "12", prompt_text="What?<think>"), 0),
    (against("\U0001f600", "\U0001f600"), 1),
    (against("\U0001f600", "\U0001f601"), 0),
    (against("\u56db\u5341\u4e8c\u3002", "\u56db\u5341\u4e8c"), 1),
    (against("\u7b54\u6848\u662f 42\u3002", "42"), 1),
    (against("\u0664\u0662", "42"), 1),
    (against("\u0645\u0631\u062d\u0628\u0627", "\u0645\u0631\u062d\u0628\u0627"), 1),
    (against("4\x002", "42"), 0),
    (against("\x00", "42"), 0),
    (against("\ud800", "42"), 0),
]
SEMANTIC_SIMILARITY = [
    (against("42", "42"), 1),
    (against("a", "a"), 1),
    (against("42", "17"), 0),
    (against("", "42"), 0),
    (against("42", None), None),
    (against("<think>42", "42"), 0),
    (against("<think>x</think>42", "42"), 1),
    (against("\U0001f600", "\U0001f600"), 1),
    (against("\U0001f600\U0001f601", "\U0001f602\U0001f603"), 0),
    (against("\u5317\u4eac\u662f\u9996\u90fd", "\u5317\u4eac\u662f\u9996\u90fd"), 1),
    (against("\u0645\u0631\u062d\u0628\u0627", "\u0645\u0631\u062d\u0628\u0627"), 1),
    (against("\x00", "\x00"), 1),
    (against("\x00", "a"), 0),
    (against("\ud800", "\udc00"), 0),
]
FORMAT_STRUCTURE = [
    (text(""), 0),
    (text(" \n\t"), 0),
    (text("<think></think>"), 0),
    (text("42"), 0.1),
    (text("<think>one two three four"), 0.3),
    (text("one two three four</think>42"), 0.3),
    (text("<think>one two three four</think>"), 0.3),
    (text("<think></think>42"), 0.3),
    (text("<think>a<think>b</think>c</think>42"), 0.2),
    (text("<think>a</think>b<think>c</think>42"), 0.2),
    (text("Sure. <think>one two three four</think>42"), 0.2),
    (text("<think>one two three four</think>42"), 1),
    (text("one two three four</think>42", prompt_text="What?<think>\n"), 1),
    (text("one two three four</think>42", thinking_opened=True), 1),
    (text("<think>one two three four</think>42", prompt_text="What?<think>\n"), 0.2),
    (text("<think>one two</think>42"), 0.3 + 0.7 * 0.5),
    (text("<think>one two three</think>42"), 0.3 + 0.7 * 0.75),
    (text("<think>t</think>42", thinking_tokens=9), 0.3 + 0.7 * 0.5),
    (text("<think>t</think>42", thinking_tokens=12), 0.3),
    (text("<think>\u597d</think>\u56db\u5341\u4e8c", thinking_tokens=5), 1),
    (text("<think>\U0001f600</think>\U0001f600", thinking_tokens=5), 1),
    (text("<think>\u0645\u0631\u062d\u0628\u0627</think>\u0664\u0662", thinking_tokens=5), 1),
    (text("\x00"), 0.1),
    (text("<think>\x00</think>\x00", thinking_tokens=5), 1),
]
THINKING_QUALITY = [
    (text(""), 0),
    (text("42"), 0),
    (text("<think> </think>42"), 0),
    (text("<think>one</think>42"), 0.5),
    (text("<think>one two</think>42"), 1),
    (text("<think>one two three four five six</think>42"), 0.5),
    (text("<think>one two three four five six seven eight</think>42"), 0),
    (text("<think>one two"), 0.8),
    (text("<think>one two</think>"), 1),
    (text("<think>one<think>two</think>42", thinking_tokens=3), 0.8),
    (text("one two</think>42", thinking_opened=True), 1),
    (text("<think>I cannot help with</think>42"), 0.9),
    (text("<think>I cannot helpful with</think>42"), 1),
    (text("<think>aa aa aa aa</think>42"), 1 - 0.5 * 0.5),
    (text("<think>\u6211\u5148\u7b97\u4e00\u7b97</think>42", thinking_tokens=4), 1),
    (text("<think>\U0001f600</think>42", thinking_tokens=4), 1),
    (text("<think>\u0646\u062c\u0645\u0639 \u0639\u062f\u062f\u064a\u0646</think>42"), 1),
    (text("<think>\x00</think>42", thinking_tokens=4), 1),
]
ANSWER_QUALITY = [
    (text(""), 0),
    (text(" "), 0),
    (text("4"), 1),
    (text("hello"), 1),
    (text("difficult"), 1),
    (text("fundamental"), 1),
    (text("Hmm, 4"), 0.75),
    (text("I'm not sure, 4"), 0.75),
    (text("I\u2019m not sure, 4"), 0.75),
    (text("hmm hmm"), 0.5),
    (text("<think>4"), 0),
    (text("<think>hmm</think>4"), 1),
    (text("<think>a<think>b</think>hmm 4"), 0.75),
    (text("hmm</think>4", thinking_opened=True), 1),
    (text("aa aa aa aa"), 0.5),
    (text("\u56db\u5341\u4e8c"), 1),
    (text("\u597d\u597d\u597d\u597d"), 0.5),
    (text("\U0001f600" * 9), 1),
    (text("\u0645\u0631\u062d\u0628\u0627"), 1),
    (text("\x00"), 1),
]
STEPS_COVERAGE = [
    (text("42"), None),
    (steps("42"), None),
    (steps("", "add 3 and 4"), 0),
    (steps("We add 3 and 4. Then more.", "add 3 and 4"), 1),
    (steps("We add 3 and 4. Then more.", "add 3 and 4", "halve it"), 0.5),
    (steps("Adding 3 and 5.", "add 3 and 4"), 0),
    (steps("<think>add 3 and 4", "add 3 and 4"), 1),
    (steps("<think>a<think>add 3 and 4</think>7", "add 3 and 4"), 1),
    (steps("\u6211\u4eec\u5148\u52a0\u4e09\u3002", "\u5148\u52a0\u4e09"), 1),
    (
        steps(
            "\u0646\u062c\u0645\u0639 \u0639\u062f\u062f\u064a\u0646",
            "\u0646\u062c\u0645\u0639 \u0639\u062f\u062f\u064a\u0646",
        ),
        1,
    ),
    (steps("\U0001f600", "add"), 0),
    (steps("add\x00 3", "add 3"), 1),
]
MCQ_ACCURACY = [
    (choice("B"), 1),
    (choice("(B)"), 1),
    (choice("**B**"), 1),
    (choice("The answer is B."), 1),
    (choice("Answer: B"), 1),
    (choice("A cat sat. B) yes"), 1),
    (choice("Yes."), 1),
    (choice("A"), 0),
    (choice("A, B"), 0),
    (choice("A, B", correct_letters="AB"), 1),
    (choice(""), 0),
    (choice("1. think\n2. answer"), 0),
    (choice("<think>B"), 0),
    (choice("<think>A</think>B"), 1),
    (choice("<think>A<think>C</think>B"), 1),
    (choice("\u7b54\u6848\u662f (B)"), 1),
    (choice("\U0001f600"), 0),
    (choice("\u0627\u0644\u0625\u062c\u0627\u0628\u0629 (B)"), 1),
    (choice("B\x00"), 0),
    (text("B"), None),
    (text("1. x", prompt_text="Plan:\n1. think\n2. write", reference_answer="1. x"), None),
    (text("B", prompt_text="Which?\nA) red\nB) green", reference_answer=None), None),
    (text("B", prompt_text="Which?\nA) red\nB) green", reference_answer="B"), 1),
]
LENGTH_PENALTY = [
    (text(""), 0),
    (text("one"), 0.5),
    (text("one two"), 1),
    (text("<think>one two</think>three four"), 1),
    (text("x", thinking_tokens=4, answer_tokens=2), 0.5),
    (text("x", thinking_tokens=0, answer_tokens=8), 0),
    (text("\u597d", answer_tokens=3), 1),
    (text("\U0001f600", answer_tokens=3), 1),
    (text("\x00", answer_tokens=3), 1),
]
SOFT_OVERLONG = [
    (text(""), 0),
    (text("one two three four"), 0),
    (text("one two three four five"), -0.25),
    (text("x", thinking_tokens=4, answer_tokens=4), -1),
    (text("x", thinking_tokens=400, answer_tokens=4), -1),
    (text("\u597d", answer_tokens=3), 0),
    (text("\U0001f600", answer_tokens=6), -0.5),
    (text("\x00", answer_tokens=6), -0.5),
]
REPETITION_PENALTY = [
    (text(""), 0),
    (text("one two"), 0),
    (text("one two three four"), 0),
    (text("aa aa aa aa"), -0.5),
    (text("<think>aa aa</think>aa aa"), -1 / 4),
    (text("\u597d\u597d\u597d\u597d"), -0.5),
    (text("\U0001f600" * 9), 0),
    (text("\u0645\u0631\u062d\u0628\u0627 " * 4), -0.5),
    (text("\x00" * 9), 0),
]
COUNTDOWN = [
    (puzzle("(1 + 2) * 4"), 1),
    (puzzle("1"), 0),
    (puzzle(""), 0),
    (puzzle(" \n"), 0),
    (puzzle("<think>(1 + 2) * 4"), 0),
    (puzzle("<think>(1 + 2) * 4</think>"), 0),
    (puzzle("<think>1 + 2<think>3</think>(1 + 2) * 4"), 1),
    (puzzle("3 * 4</think>(1 + 2) * 4", prompt_text="How?<think>\n"), 1),
    (puzzle("(1 + 2) * 4", prompt_text="How?<think>"), 0),
    (text("(1 + 2) * 4"), None),
    (puzzle("\U0001f600"), 0),
    (puzzle("\u7b54\u6848\u662f \\boxed{(1 + 2) * 4}"), 1),
    (puzzle("\x00"), 0),
]
RIGHT, WRONG = (f"```python\ndef f(n):\n    return n + {more}\n```" for more in (1, 2))
CODE_EXECUTION = [
    (program(RIGHT), 1),
    (program(WRONG), 0),
    (program(""), 0),
    (program(" \n"), 0),
    (program("x"), 0),
    (program("    import math\n    def f(n):\n        return n + 1"), 1),
    (program(f"<think>{RIGHT}"), 0),
    (program(f"<think>{RIGHT}</think>"), 0),
    (program(f"<think>{RIGHT}</think>Nobody knows."), 0),
    (program(f"<think>{WRONG}</think>{RIGHT}"), 1),
    (program(f"<think>a<think>{WRONG}</think>{RIGHT}"), 1),
    (program(f"{WRONG}</think>{RIGHT}", prompt_text="How?<think>\n"), 1),
    (program(RIGHT, prompt_text="How?<think>"), 0),
    (program(f"<hmm>{RIGHT}</hmm>Nobody knows.", think_tags=("<hmm>", "</hmm>")), 0),
    (text(RIGHT), None),
    (program(f"\U0001f600 \u597d\n{RIGHT}"), 1),
    (program("\x00"), 0),
    (program("\ud800"), 0),
]
TABLES = {
    "exact_match": EXACT_MATCH,
    "semantic_similarity": SEMANTIC_SIMILARITY,
    "format_structure": FORMAT_STRUCTURE,
    "thinking_quality": THINKING_QUALITY,
    "answer_quality": ANSWER_QUALITY,
    "steps_coverage": STEPS_COVERAGE,
    "mcq_accuracy": MCQ_ACCURACY,
    "length_penalty": LENGTH_PENALTY,
    "soft_overlong": SOFT_OVERLONG,
    "repetition_penalty": REPETITION_PENALTY,
    "countdown": COUNTDOWN,
    "code_execution": CODE_EXECUTION,
}
ELSEWHERE = {"countdown", "code_execution"}
"""Given long texts in tests of their own."""

CASES = [(name, row, *case) for name, table in TABLES.items() for row, case in enumerate(table)]


def value(name, context):
    result = RewardRegistry.create(name, CONFIGS.get(name, {})).compute(context)
    return result["reward"] if isinstance(result, dict) else result


@pytest.mark.parametrize(
    ("name", "context", "expected"),
    [(name, context, expected) for name, _, context, expected in CASES],
    ids=[f"{name}-{row}" for name, row, *_ in CASES],
)
def test_golden(name, context, expected):
    found = value(name, context)
    assert found is None if expected is None else found == pytest.approx(expected, abs=1e-9)


PIECES = {
    "words": "one two three ",
    "open tags": "<think>",
    "close tags": "</think>",
    "Chinese": "\u597d\u4e2d",
    "Arabic": "\u0645\u0631\u062d\u0628\u0627 ",
    "emoji": "\U0001f600",
    "combining": "e\u0301",
    "null bytes": "\x00",
    "digits": "9",
    "thousands": "1,",
    "boxed": r"\boxed{",
    "hashes": "#### ",
    "letters": "A) ",
    "spaces": " ",
    "lines": "\n",
    "phrases": "hmm ",
}


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize("name", sorted(TABLES.keys() - ELSEWHERE))
def test_five_megabytes_in_a_second(name, piece):
    long = PIECES[piece] * (5_000_000 // len(PIECES[piece].encode()))
    context = RewardContext(
        generated_text=long,
        thinking=long,
        answer=long,
        thinking_tokens=3,
        answer_tokens=3,
        reference_answer="one two 12",
        meta={"required_steps": ["one two"], "options": ["one", "two"], "correct_letters": "A"},
    )
    start = time.process_time()
    assert -1 <= value(name, context) <= 1
    assert time.process_time() - start < 1  # of this process, whatever else the machine does
