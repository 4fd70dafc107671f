"""Data sets of reasoning-gym, where it is installed: rows, their own scorers, and what cannot be."""

import json

import pytest

from pipelines.config import SyntheticConfig
from pipelines.errors import ConfigError
from pipelines.rewards import RewardContext, RewardRegistry
from pipelines.rows.records import from_json, to_json
from pipelines.rows.synthetic.reasoning_gym import PREFIX
from pipelines.rows.synthetic.registry import generate

pytest.importorskip("reasoning_gym", reason="needs the extra `tasks`")

DATA_SETS = (
    "basic_arithmetic",
    "bf",
    "chain_sum",
    "countdown",
    "gcd",
    "knights_knaves",
    "leg_counting",
    "mini_sudoku",
    "prime_factorization",
    "simple_equations",
    "spell_backward",
    "word_sorting",
)


def made(name: str, **section):
    splits = generate(SyntheticConfig(task=PREFIX + name, train_rows=6, val_rows=3, **section))
    return {split: [from_json(json.loads(to_json(row))) for row in rows] for split, rows in splits.items()}


def scored(answer: str | None, meta) -> object:
    reward = RewardRegistry.create("reasoning_gym", {"outside_sandbox": True})
    return reward.compute(RewardContext(answer=answer or "", generated_text=answer or "", meta=meta))


@pytest.mark.parametrize("name", DATA_SETS)
def test_gold_scores_one_and_nonsense_does_not(name, capfd):
    rows = made(name)
    assert [len(rows["train"]), len(rows["val"])] == [6, 3]
    assert len({row.prompt for split in rows.values() for row in split}) == 9
    for row in (*rows["train"], *rows["val"]):
        assert scored(row.completion, row.meta) == 1.0
        wrong = scored("nonsense(", row.meta)
        assert (wrong["reward"] if isinstance(wrong, dict) else wrong) < 0.5
    assert made(name) == rows
    assert capfd.readouterr().out == ""


def test_what_a_scorer_cannot_read_is_wrong_and_says_why():
    row = made("prime_factorization")["train"][0]
    assert scored("two times three", row.meta) == {
        "reward": 0.0,
        "reason": "the scorer cannot read it: ValueError: invalid literal for int() with base 10: 'two times three'",
    }


def test_a_data_set_without_answers_has_rows_and_a_scorer():
    row = made("graph_color")["train"][0]
    assert row.completion is None
    assert scored("no colouring", row.meta) < 0.5


def test_another_entry_is_a_failure_and_no_score():
    row = made("gcd")["train"][0]
    changed = {"reasoning_gym": row.meta["reasoning_gym"] | {"asked": "0" * 16}}
    with pytest.raises(ValueError, match=r"entry 3 of 'gcd' is another question here: .* PYTHONHASHSEED=0"):
        scored(row.completion, changed)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("composite", {}, "at least one dataset"),
        ("gcd", {"max_numbers": "many"}, "TypeError"),
        ("gcd", {"most": 1}, "'most'"),
    ],
)
def test_what_the_package_refuses_is_an_error_of_the_configuration(name, options, message):
    with pytest.raises(ConfigError, match=message) as caught:
        made(name, options=options)
    assert "GALLERY.md" in caught.value.hint


def test_a_name_that_nobody_has():
    with pytest.raises(ConfigError, match=r"data\.synthetic\.task: there is no task 'leg_countin' here, nor") as caught:
        generate(SyntheticConfig(task="leg_countin"))
    assert "did you mean 'leg_counting'" in caught.value.hint
