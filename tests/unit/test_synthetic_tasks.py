"""Generated tasks: rows frozen for ever, whole spaces counted, and every way to ask for what cannot be."""

from itertools import combinations, combinations_with_replacement, pairwise
from math import comb

import pytest

from pipelines.config import SyntheticConfig
from pipelines.errors import ConfigError, DataError
from pipelines.rewards import RewardContext, RewardRegistry
from pipelines.rows.synthetic import reasoning_gym
from pipelines.rows.synthetic.base import Example
from pipelines.rows.synthetic.draws import Draw, Order, multiset, subset
from pipelines.rows.synthetic.reasoning_gym import different
from pipelines.rows.synthetic.registry import TASKS, generate

GOLDEN = [
    ("arithmetic", "train", "96*7=?", "<think>6*7=42,9*7=63,63+4=67</think>672"),
    ("arithmetic", "val", "41+60=?", "<think>1+0=01,4+6+0=10</think>101"),
    (
        "countdown",
        "train",
        "Use 7, 34, 16, 12 once each, with + - * / ( ), to make 420",
        "<think>34-7=27, 27*16=432, 432-12=420</think>(34-7)*16-12",
    ),
    (
        "countdown",
        "val",
        "Use 18, 43, 31, 38 once each, with + - * / ( ), to make 8",
        "<think>43-38=5, 18+5=23, 31-23=8</think>31-(18+43-38)",
    ),
    (
        "letter_counting",
        "train",
        "How many times does the letter m occur in: marble minimum",
        "<think>m1 a1 r1 b1 l1 e1, m2 i2 n2 i2 m3 u3 m4</think>4",
    ),
    (
        "letter_counting",
        "val",
        "How many times does the letter t occur in: cattle jacket",
        "<think>c0 a0 t1 t2 l2 e2, j2 a2 c2 k2 e2 t3</think>3",
    ),
    (
        "list_sorting",
        "train",
        "Sort these numbers from smallest to largest: 87, 15, 10, 61",
        "<think>10: 87 15 61; 15: 87 61; 61: 87; 87</think>10, 15, 61, 87",
    ),
    (
        "list_sorting",
        "val",
        "Sort these numbers from smallest to largest: 46, 3, 56, 82",
        "<think>3: 46 56 82; 46: 56 82; 56: 82; 82</think>3, 46, 56, 82",
    ),
    (
        "string_reversal",
        "train",
        "Write these letters in reverse order: lgxxj",
        "<think>l g x x j, j x x g l</think>jxxgl",
    ),
    (
        "string_reversal",
        "val",
        "Write these letters in reverse order: dvzxe",
        "<think>d v z x e, e x z v d</think>exzvd",
    ),
    (
        "mcq",
        "train",
        "Which number is divisible by 6?\nA) 891\nB) 444\nC) 812\nD) 437",
        "<think>891=6*148+3, 444=6*74, 812=6*135+2, 437=6*72+5</think>B",
    ),
    (
        "mcq",
        "val",
        "Which number is divisible by 8?\nA) 765\nB) 108\nC) 376\nD) 617",
        "<think>765=8*95+5, 108=8*13+4, 376=8*47, 617=8*77+1</think>C",
    ),
]


def rows(**section):
    return {split: list(found) for split, found in generate(SyntheticConfig(**section)).items()}


@pytest.mark.parametrize(("task", "split", "prompt", "completion"), GOLDEN, ids=[f"{g[0]}-{g[1]}" for g in GOLDEN])
def test_golden_rows(task, split, prompt, completion):
    """On every machine and version of Python: whoever changes these changes everybody's data."""
    row = rows(task=task, train_rows=2, val_rows=1, seed=7)[split][-1]
    assert (row.prompt, row.completion) == (prompt, completion)
    assert row.source == f"synthetic {split}:{2 if split == 'train' else 1}"


@pytest.mark.parametrize("task", TASKS)
def test_the_defaults_can_be_generated(task):
    """5,000 and 500 rows of difficulty 2, within 64 tokens of a character each, tags and the chat's marks as one."""
    found = rows(task=task)
    prompts = {split: {row.prompt for row in split_rows} for split, split_rows in found.items()}
    assert {split: len(asked) for split, asked in prompts.items()} == {"train": 5000, "val": 500}
    assert not prompts["train"] & prompts["val"]
    assert prompts["val"] != {row.prompt for row in generate(SyntheticConfig(task=task, seed=1))["val"]}
    assert max(map(len, prompts["train"])) + 3 <= 64
    assert max(len(row.completion) for row in found["train"]) - len("<think></think>") + 3 <= 64


@pytest.mark.parametrize(
    ("task", "size", "options"),
    [
        ("arithmetic", 134, {}),
        ("countdown", comb(12, 3), {"largest": 10}),
        ("letter_counting", 768, {}),
        ("list_sorting", comb(12, 3), {"largest": 9}),
        ("mcq", sum((99 // d - 9 // d) * (90 - 99 // d + 9 // d) for d in range(3, 10)), {"choices": 2}),
    ],
)
def test_every_problem_once_and_not_one_more(task, size, options):
    section = {"task": task, "difficulty": 1, "options": options, "val_rows": 20}
    found = rows(**section, train_rows=size - 20)
    assert len({row.prompt for split in found.values() for row in split}) == size
    with pytest.raises(
        DataError, match=rf"data\.synthetic\.train_rows .* only {size} problems .* difficulty 1"
    ) as caught:
        generate(SyntheticConfig(**section, train_rows=size - 19))
    assert "data.synthetic.difficulty" in caught.value.hint


def test_large_sets_begin_at_once():
    """Neither the number of rows nor that of the problems is held or walked through."""
    section = SyntheticConfig(task="string_reversal", train_rows=10**20, val_rows=10**20, difficulty=12)
    found = generate(section)
    assert len(next(found["train"]).meta["text"]) == len(next(found["val"]).meta["text"]) == 15


@pytest.mark.parametrize(
    ("section", "message", "hint"),
    [
        ({"task": "countdwn"}, "data.synthetic.task: .*'countdwn'", "did you mean 'countdown'"),
        ({"task": "countdown", "difficulty": 7}, "data.synthetic.difficulty: countdown", "1 to 6"),
        ({"task": "arithmetic", "difficulty": 10**12}, "data.synthetic.difficulty: arithmetic", "1 to 9"),
        (
            {"options": {"digits": 3}},
            "data.synthetic.options.digits: arithmetic has no such option",
            "leave options empty",
        ),
        ({"task": "mcq", "options": {"choice": 3}}, "options.choice: mcq has no such option", "did you mean 'choices'"),
        (
            {"task": "mcq", "options": {"choices": 11}},
            "options.choices: should be less than",
            "options of mcq: choices",
        ),
        ({"task": "mcq", "options": {"choices": "4"}}, "options.choices: should be a valid integer", "choices"),
        (
            {"task": "list_sorting", "options": {"order": "up"}},
            "options.order: should be 'ascending', ",
            "order, largest",
        ),
        ({"task": "countdown", "options": {"use_all": 1}}, "options.use_all: should be a valid boolean", "use_all"),
    ],
)
def test_what_cannot_be_is_refused_by_its_key(section, message, hint):
    with pytest.raises(ConfigError, match=message) as caught:
        generate(SyntheticConfig(**section))
    assert hint in caught.value.hint


def test_other_tasks_need_reasoning_gym():
    if reasoning_gym.is_installed():
        pytest.skip("it is installed")
    with pytest.raises(ConfigError, match="'leg_counting' here, and reasoning-gym is not installed") as caught:
        generate(SyntheticConfig(task="leg_counting"))
    assert "pip install reasoning-gym" in caught.value.hint
    reward = RewardRegistry.create("reasoning_gym", {"outside_sandbox": True})
    assert reward.compute(RewardContext(generated_text="4")) is None
    with pytest.raises(ModuleNotFoundError, match="pip install reasoning-gym"):
        reward.compute(RewardContext(generated_text="4", meta={"reasoning_gym": {}}))


def test_what_runs_outside_the_sandbox_is_asked_for():
    with pytest.raises(ConfigError, match=r"rewards\[0\]\.config\.outside_sandbox: .*as Python"):
        RewardRegistry.create("reasoning_gym", where="rewards[0]")


def test_data_sets_with_options_of_their_own_have_no_difficulty():
    with pytest.raises(ConfigError, match=r"data\.synthetic\.difficulty: data sets of reasoning-gym have none"):
        reasoning_gym.ReasoningGym(SyntheticConfig(task="leg_counting", difficulty=3))


def test_repeated_questions_are_left_out_and_counted():
    found = [Example(prompt, "4", {"index": index}) for index, prompt in enumerate("aabacbdeab")]
    assert [example.meta["index"] for example in different(found, 0, 2)] == [0, 2]
    assert [example.prompt for example in different(found, 2, 5)] == ["c", "d", "e"]
    assert list(different(found, 0, 0)) == []
    with pytest.raises(DataError, match=r"data\.synthetic\.train_rows .*: 6 different .* only 5 were found"):
        list(different(found, 2, 6))


@pytest.mark.parametrize("size", [1, 2, 3, 10, 97, 100, 1000])
def test_an_order_is_a_permutation_that_its_key_decides(size):
    order = [Order(size, "a", 1)[position] for position in range(size)]
    assert sorted(order) == list(range(size))
    assert order == [Order(size, "a", 1)[position] for position in range(size)]
    if size > 3:
        assert order != [Order(size, "a", 2)[position] for position in range(size)]
        assert order != list(range(size))
    for outside in (-1, size):
        with pytest.raises(IndexError):
            Order(size, "a", 1)[outside]


def test_an_order_has_no_pattern():
    """What comes next in an order of 10**12 is about as often larger as smaller, in each tenth of the range."""
    order = Order(10**12, "x")
    found = [order[position] for position in range(4000)]
    tenths = [sum(number * 10 // 10**12 == tenth for number in found) for tenth in range(10)]
    assert all(300 < count < 500 for count in tenths)
    rising = sum(later > earlier for earlier, later in pairwise(found))
    assert 1850 < rising < 2150
    assert len(set(found)) == 4000


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_sets_are_numbered_without_gaps(count):
    sets = {tuple(subset(index, count)) for index in range(comb(7, count))}
    assert sets == set(combinations(range(7), count))
    multisets = {tuple(multiset(index, count)) for index in range(comb(7 + count - 1, count))}
    assert multisets == set(combinations_with_replacement(range(7), count))


def test_choices_depend_on_the_key_alone():
    draw = Draw("task", 2, 7)
    assert [draw.below(1000) for _ in range(5)] == [403, 169, 183, 949, 21]
    assert "".join(draw.shuffled("abcdef")) == "feadbc"
    counts = [0] * 6
    for _ in range(6000):
        counts[draw.below(6)] += 1
    assert all(850 < count < 1150 for count in counts)
    assert sorted(draw.shuffled(range(50))) == list(range(50))
