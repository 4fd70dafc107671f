"""From prompts to the rows of an update: who is dropped, who is silent, who abstained, what is reported."""

import json
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from pipelines import plan, preprocess
from pipelines.algorithms.advantages import compute_advantages
from pipelines.algorithms.grpo import Grpo
from pipelines.config import DataConfig, ExperimentConfig, RewardConfig
from pipelines.errors import DataError
from pipelines.models.load import load
from pipelines.rewards import BaseReward, RewardComposer, RewardRegistry
from pipelines.tokens.dataset import TokenDataset
from pipelines.training.collect import ReferenceCollector, RolloutCollector, distinct

ROWS = Path(__file__).resolve().parents[2] / "data" / "arithmetic" / "train.jsonl"
GROUP = 4
DATA = DataConfig(train_path="some/rows.jsonl")


@RewardRegistry.register("test_collect_letters")
class Letters(BaseReward):
    """A number that nearly every text has for itself; on prompts with `constant` in their meta it is 1."""

    def compute(self, context):
        if context.meta.get("constant"):
            return 1.0
        return sum(i * ord(letter) for i, letter in enumerate(context.generated_text)) % 97 / 97


@RewardRegistry.register("test_collect_shy")
class Shy(BaseReward):
    """Abstains where the row's meta says so."""

    def compute(self, context):
        return None if context.meta.get("shy") else 10.0 * len(context.generated_text)


@RewardRegistry.register("test_collect_broken")
class Broken(BaseReward):
    """Raises on one row."""

    def compute(self, context):
        if context.meta.get("constant"):
            raise RuntimeError("no luck")
        return 0.5


@pytest.fixture(scope="module")
def loaded():
    return load("builtin:tiny")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Eight rows: the even ones constant, 1 and 2 shy, the last one without a completion."""
    folder = tmp_path_factory.mktemp("collect")
    rows = [json.loads(line) for line in ROWS.read_text().splitlines()[:8]]
    for i, row in enumerate(rows):
        row["meta"] = {"constant": i % 2 == 0, "shy": i in {1, 2}}
    del rows[7]["completion"]
    rows[7]["test_cases"] = ["assert True"]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = ExperimentConfig.model_validate(
        {"data": {"train_path": str(folder / "rows.jsonl")}, "paths": {"stages": str(folder / "stages")}}
    )
    preprocess.run(config)
    return TokenDataset(plan.stage_directory(config, "preprocess", plan.preprocess_identity(config)), "train")


def collector(loaded, dataset, *, rewards=("test_collect_letters",), advantage=None, loss=None, max_gen_len=40):
    config = ExperimentConfig.model_validate(
        {
            "trainer": {"num_rollout_samples": GROUP, "advantage": advantage or {}, "loss": loss or {}},
            "data": {"max_gen_len": max_gen_len},
            "rewards": [{"name": name} for name in rewards],
        }
    )
    composer = RewardComposer([RewardConfig(name=name) for name in rewards], max_failure_fraction=1.0)
    algorithm = Grpo(config.trainer)
    return RolloutCollector(
        loaded=loaded, dataset=dataset, composer=composer, algorithm=algorithm, config=config, seed=0
    )


def texts(sequences):
    return [tuple(completion.tolist()) for completion in sequences.completions]


def test_groups_without_spread_leave_the_update(loaded, dataset):
    collected = collector(loaded, dataset).collect(1, [0, 1, 2, 3, 5])
    rows = collected.sequences
    assert len(rows) == 3 * GROUP
    for row, prompt in enumerate(rows.prompts):
        np.testing.assert_array_equal(prompt, dataset.prompt_tokens([1, 3, 5][row // GROUP]))
    assert rows.totals(40).rows == 3 * GROUP
    assert rows.totals(40).items == sum(map(len, rows.completions))
    np.testing.assert_allclose(rows.advantages.reshape(-1, GROUP).sum(axis=1), 0, atol=1e-5)
    assert (np.abs(rows.advantages) > 0).any()
    assert collected.metrics["frac_reward_zero_std"] == pytest.approx(0.4)
    assert collected.metrics["groups/all_equal"] == 2
    assert collected.metrics["num_tokens"] > rows.totals(40).items  # what was decoded, dropped or not
    assert len(collected.samples()) == 5 * GROUP


def test_all_groups_without_spread_leave_nothing(loaded, dataset):
    collected = collector(loaded, dataset).collect(1, [0, 2])
    assert len(collected.sequences) == 0
    assert collected.metrics["frac_reward_zero_std"] == 1


def test_groups_without_spread_may_stay(loaded, dataset):
    rows = collector(loaded, dataset, advantage={"drop_zero_variance_groups": False}).collect(1, [0, 1]).sequences
    assert len(rows) == 2 * GROUP
    assert rows.advantages[:GROUP].tolist() == [0] * GROUP
    assert rows.totals(40).rows == 2 * GROUP


def test_truncated_completions_are_silent_only_if_asked(loaded, dataset):
    short = {"max_gen_len": 19}
    plain = collector(loaded, dataset, **short).collect(1, [1, 3, 5])
    masked = collector(loaded, dataset, loss={"mask_truncated_completions": True}, **short).collect(1, [1, 3, 5])
    assert not plain.sequences.silent.any()
    eos = next(iter(loaded.eos_ids))
    truncated = np.array([completion[-1] != eos for completion in masked.sequences.completions])
    assert 0 < truncated.sum() < len(truncated)
    np.testing.assert_array_equal(masked.sequences.silent, truncated)
    assert masked.sequences.teach
    assert not replace(masked.sequences, silent=np.ones_like(truncated)).teach
    assert len(masked.sequences) == len(plain.sequences)
    assert masked.sequences.totals(19).rows == plain.sequences.totals(19).rows
    assert masked.sequences.totals(19).items == plain.sequences.totals(19).items - 19 * truncated.sum()
    assert masked.metrics["completions/clipped_ratio"] == pytest.approx(truncated.mean())
    batch = masked.sequences.batch(np.arange(len(truncated)))
    np.testing.assert_array_equal(np.array(batch.mask).any(axis=1), ~truncated)


def test_a_prompt_twice_in_an_update_is_sampled_anew(loaded, dataset):
    rows = collector(loaded, dataset, advantage={"drop_zero_variance_groups": False})
    both = texts(rows.collect(1, [3, 3]).sequences)
    assert both[:GROUP] != both[GROUP:]
    assert texts(rows.collect(1, [3, 3]).sequences) == both
    assert texts(rows.collect(1, [5, 3]).sequences)[GROUP:] == both[:GROUP]  # whoever shares the update
    assert texts(rows.collect(2, [3, 3]).sequences) != both


def test_names_of_repeated_prompts_meet_no_other_prompt():
    assert distinct([4, 1, 4, 4, 1], 10) == [4, 1, 14, 24, 11]
    assert len(set(distinct([9, 9, 0, 9, 0], 10))) == 5


def test_a_reward_that_abstains_leaves_the_row_to_the_others(loaded, dataset):
    names = ("test_collect_letters", "test_collect_shy")
    collected = collector(loaded, dataset, rewards=names).collect(1, [1, 3])
    records = collected.samples()
    for record in records[:GROUP]:
        assert record["rewards"]["test_collect_shy"] is None
        assert record["reward"] == pytest.approx(record["rewards"]["test_collect_letters"])
    for record in records[GROUP:]:
        both = list(record["rewards"].values())
        assert record["reward"] == pytest.approx(sum(both) / 2, rel=1e-5)
    present = [record["rewards"]["test_collect_shy"] for record in records[GROUP:]]
    assert collected.metrics["rewards/test_collect_shy/mean"] == pytest.approx(np.mean(present))
    assert all(np.isfinite(value) for value in collected.metrics.values())


def test_rows_in_which_every_reward_abstained_teach_nothing(loaded, dataset):
    collected = collector(loaded, dataset, rewards=("test_collect_shy",)).collect(1, [1, 3])
    assert [record["reward"] for record in collected.samples()[:GROUP]] == [None] * GROUP
    assert collected.sequences.advantages[:GROUP].tolist() == [0] * GROUP
    assert np.abs(collected.sequences.advantages[GROUP:]).max() > 0
    assert "rewards/test_collect_shy/mean" in collected.metrics
    silent = collector(loaded, dataset, rewards=("test_collect_shy",)).collect(1, [1, 2])
    assert "reward" not in silent.metrics
    assert not np.any(silent.sequences.advantages)


def test_rewards_normalised_apart_do_not_drown_each_other(loaded, dataset):
    names, way = ("test_collect_letters", "test_collect_shy"), {"aggregation": "normalize_then_sum"}
    made = collector(loaded, dataset, rewards=names, advantage=way)
    collected = made.collect(1, [3, 5])
    table = np.array([list(record["rewards"].values()) for record in collected.samples()], np.float32)
    expected = compute_advantages(mx.array(table), GROUP, made.config.trainer.advantage, weights=mx.ones(2)).values
    np.testing.assert_allclose(collected.sequences.advantages, np.array(expected), rtol=1e-4, atol=1e-5)
    summed = collector(loaded, dataset, rewards=names).collect(1, [3, 5]).sequences.advantages
    assert np.abs(summed - collected.sequences.advantages).max() > 0.1


def test_a_reward_that_fails_is_counted_and_said(loaded, dataset, caplog):
    collected = collector(loaded, dataset, rewards=("test_collect_broken",)).collect(3, [0, 1])
    assert collected.metrics["rewards/failures"] == GROUP
    assert "step 3: reward test_collect_broken failed at row 0: RuntimeError: no luck" in caplog.messages
    assert collected.samples()[0]["reward"] is None


def test_samples_say_what_was_learnt_from(loaded, dataset):
    collected = collector(loaded, dataset).collect(1, [1])
    for record, advantage, completion in zip(
        collected.samples(), collected.sequences.advantages, collected.sequences.completions, strict=True
    ):
        assert record["advantage"] == pytest.approx(float(advantage))
        assert record["length_tokens"] == len(completion)
        assert record["prompt"] == dataset.row(1).prompt
        assert record["reference"] == dataset.row(1).completion
        assert loaded.tokenizer.decode(completion.tolist()).startswith(record["completion"][:10])


def test_references_are_the_completions_of_sft(dataset):
    collected = ReferenceCollector(dataset, DATA).collect(1, [0, 4])
    for row, index in enumerate((0, 4)):
        np.testing.assert_array_equal(collected.sequences.completions[row], dataset.completion_tokens(index))
        np.testing.assert_array_equal(collected.sequences.prompts[row], dataset.prompt_tokens(index))
    tokens = sum(len(dataset.completion_tokens(i)) for i in (0, 4))
    assert collected.metrics["num_tokens"] == collected.sequences.totals(0).items == tokens
    assert collected.samples() == []


def test_a_row_without_a_reference_is_named_with_its_line(dataset):
    with pytest.raises(DataError, match=r"^some/rows\.jsonl:8: no reference completion.*update 5") as told:
        ReferenceCollector(dataset, DATA).collect(5, [0, 7])
    assert "algorithm" in told.value.hint
