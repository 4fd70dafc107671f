"""From prompts to the rows of an update: who is dropped, who is silent, who abstained, what is reported."""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from pipelines import plan, preprocess
from pipelines.algorithms.advantages import compute_advantages
from pipelines.algorithms.grpo import Grpo
from pipelines.algorithms.regions import tags_for
from pipelines.config import DataConfig, ExperimentConfig, GenerationConfig, RewardConfig
from pipelines.errors import DataError, RewardError
from pipelines.models.load import load
from pipelines.models.logprobs import spots
from pipelines.rewards import BaseReward, RewardRegistry
from pipelines.rewards.workers import ParallelComposer
from pipelines.tokens.dataset import TokenDataset
from pipelines.training.collect import RolloutCollector
from pipelines.training.passes import Pass
from pipelines.training.policy import Policy
from pipelines.training.references import ReferenceCollector, References
from pipelines.training.rounds import Roller, distinct

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


@RewardRegistry.register("test_collect_unwell")
class Unwell(BaseReward):
    """Abstains as a code reward does whose sandbox failed."""

    def compute(self, context):
        return {"reward": None, "sandbox_failure": "no process"} if context.meta.get("shy") else 1.0


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


def collector(
    loaded, dataset, *, rewards=("test_collect_letters",), advantage=None, loss=None, max_gen_len=40, generation=None
):
    config = ExperimentConfig.model_validate(
        {
            "trainer": {"num_rollout_samples": GROUP, "advantage": advantage or {}, "loss": loss or {}},
            "data": {"max_gen_len": max_gen_len},
            "generation": generation or {},
            "rewards": [{"name": name} for name in rewards],
        }
    )
    composer = ParallelComposer([RewardConfig(name=name) for name in rewards], workers=0, max_failure_fraction=1.0)
    return RolloutCollector(Roller(loaded, dataset, composer, config, seed=0), Grpo(config.trainer))


def collect(made, step, indices, fresh=()):
    """An update of the prompts at `indices`; those of `fresh` come next when more are asked for."""
    waiting = [*indices, *fresh]

    def draw(count):
        assert len(waiting) >= count
        taken, waiting[:count] = waiting[:count], []
        return taken

    return made.collect(step, len(indices), draw)


def texts(sequences):
    return [tuple(completion.tolist()) for completion in sequences.completions]


def test_groups_without_spread_leave_the_update(loaded, dataset):
    collected = collect(collector(loaded, dataset), 1, [0, 1, 2, 3, 5])
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
    collected = collect(collector(loaded, dataset), 1, [0, 2])
    assert len(collected.sequences) == 0
    assert collected.metrics["frac_reward_zero_std"] == 1


def test_groups_without_spread_may_stay(loaded, dataset):
    rows = collect(collector(loaded, dataset, advantage={"drop_zero_variance_groups": False}), 1, [0, 1]).sequences
    assert len(rows) == 2 * GROUP
    assert rows.advantages[:GROUP].tolist() == [0] * GROUP
    assert rows.totals(40).rows == 2 * GROUP


def test_truncated_completions_are_silent_only_if_asked(loaded, dataset):
    short = {"max_gen_len": 19, "advantage": {"drop_zero_variance_groups": False}}
    plain = collect(collector(loaded, dataset, **short), 1, [1, 3, 5])
    masked = collect(collector(loaded, dataset, loss={"mask_truncated_completions": True}, **short), 1, [1, 3, 5])
    assert not plain.sequences.silent.any()
    eos = next(iter(loaded.eos_ids))
    truncated = np.array([completion[-1] != eos for completion in masked.sequences.completions])
    assert 0 < truncated.sum() < len(truncated)
    np.testing.assert_array_equal(masked.sequences.silent, truncated)
    everything = [Pass(thinking=1.0, answer=1.0, leaves=frozenset(), lowest=0)]
    assert masked.sequences.teach(everything)
    assert not replace(masked.sequences, silent=np.ones_like(truncated)).teach(everything)
    assert len(masked.sequences) == len(plain.sequences)
    assert masked.sequences.totals(19).rows == plain.sequences.totals(19).rows
    assert masked.sequences.totals(19).items == plain.sequences.totals(19).items - 19 * truncated.sum()
    assert masked.metrics["completions/clipped_ratio"] == pytest.approx(truncated.mean())
    batch = masked.sequences.batch(np.arange(len(truncated)))
    np.testing.assert_array_equal(np.array(batch.mask).any(axis=1), ~truncated)


def test_a_prompt_twice_in_an_update_is_sampled_anew(loaded, dataset):
    rows = collector(loaded, dataset, advantage={"drop_zero_variance_groups": False})
    both = texts(collect(rows, 1, [3, 3]).sequences)
    assert both[:GROUP] != both[GROUP:]
    assert texts(collect(rows, 1, [3, 3]).sequences) == both
    assert texts(collect(rows, 1, [5, 3]).sequences)[GROUP:] == both[:GROUP]  # whoever shares the update
    assert texts(collect(rows, 2, [3, 3]).sequences) != both


def test_names_of_repeated_prompts_meet_no_other_prompt():
    assert distinct([4, 1, 4, 4, 1], 10) == [4, 1, 14, 24, 11]
    assert len(set(distinct([9, 9, 0, 9, 0], 10))) == 5


def test_a_reward_that_abstains_leaves_the_row_to_the_others(loaded, dataset):
    names = ("test_collect_letters", "test_collect_shy")
    collected = collect(collector(loaded, dataset, rewards=names), 1, [1, 3])
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


@pytest.mark.usefixtures("as_on_a_cpu")
def test_rows_in_which_every_reward_abstained_teach_nothing(loaded, dataset):
    collected = collect(collector(loaded, dataset, rewards=("test_collect_shy",)), 1, [1, 3])
    assert [record["reward"] for record in collected.samples()[:GROUP]] == [None] * GROUP
    assert collected.sequences.advantages[:GROUP].tolist() == [0] * GROUP
    assert np.abs(collected.sequences.advantages[GROUP:]).max() > 0
    assert "rewards/test_collect_shy/mean" in collected.metrics
    silent = collect(collector(loaded, dataset, rewards=("test_collect_shy",)), 1, [1, 2])
    assert "reward" not in silent.metrics
    assert not np.any(silent.sequences.advantages)


@pytest.mark.usefixtures("as_on_a_cpu")
def test_rewards_normalised_apart_do_not_drown_each_other(loaded, dataset):
    names, way = ("test_collect_letters", "test_collect_shy"), {"aggregation": "normalize_then_sum"}
    made = collector(loaded, dataset, rewards=names, advantage=way)
    collected = collect(made, 1, [3, 5])
    table = np.array([list(record["rewards"].values()) for record in collected.samples()], np.float32)
    expected = compute_advantages(mx.array(table), GROUP, made.trainer.advantage, weights=mx.ones(2)).values
    np.testing.assert_allclose(collected.sequences.advantages, np.array(expected), rtol=1e-4, atol=1e-5)
    summed = collect(collector(loaded, dataset, rewards=names), 1, [3, 5]).sequences.advantages
    assert np.abs(summed - collected.sequences.advantages).max() > 0.1


def test_a_reward_that_fails_is_counted_and_said(loaded, dataset, caplog):
    collected = collect(collector(loaded, dataset, rewards=("test_collect_broken",)), 3, [0, 1])
    assert collected.metrics["rewards/failures"] == GROUP
    assert "step 3: reward test_collect_broken failed at row 0: RuntimeError: no luck" in caplog.messages
    assert collected.samples()[0]["reward"] is None


def test_each_reward_says_how_long_it_took(loaded, dataset, monkeypatch):
    """Both rounds of an update that was refilled are added up."""
    names = ("test_collect_letters", "test_collect_unwell")
    made = collector(loaded, dataset, rewards=names, advantage={"refill": 1})
    clock = itertools.count()
    monkeypatch.setattr("pipelines.rewards.composer.perf_counter", lambda: float(next(clock)))
    metrics = collect(made, 1, [0, 3], fresh=[5]).metrics
    assert [metrics[f"time/rewards/{name}"] for name in names] == [2.0, 2.0]


def test_failures_of_the_sandbox_are_counted_and_are_no_wrong_answers(loaded, dataset):
    collected = collect(collector(loaded, dataset, rewards=("test_collect_unwell",)), 1, [1, 3])
    assert collected.metrics["rewards/sandbox_failures"] == GROUP
    assert collected.metrics["rewards/failures"] == 0
    assert collected.metrics["reward"] == 1.0


def test_samples_say_what_was_learnt_from(loaded, dataset):
    collected = collect(collector(loaded, dataset), 1, [1])
    for record, advantage, completion in zip(
        collected.samples(), collected.sequences.advantages, collected.sequences.completions, strict=True
    ):
        assert record["advantage"] == pytest.approx(float(advantage))
        assert record["length_tokens"] == len(completion)
        assert record["prompt"] == dataset.row(1).prompt
        assert record["reference"] == dataset.row(1).completion
        assert loaded.tokenizer.decode(completion.tolist()).startswith(record["completion"][:10])


def taught(dataset):
    tokenizer = load("builtin:tiny").tokenizer
    return ReferenceCollector(References(dataset, DATA, tokenizer, tags_for(tokenizer, GenerationConfig())))


def test_references_are_the_completions_of_sft(dataset):
    collected = collect(taught(dataset), 1, [0, 4])
    for row, index in enumerate((0, 4)):
        np.testing.assert_array_equal(collected.sequences.completions[row], dataset.completion_tokens(index))
        np.testing.assert_array_equal(collected.sequences.prompts[row], dataset.prompt_tokens(index))
    tokens = sum(len(dataset.completion_tokens(i)) for i in (0, 4))
    assert collected.metrics["num_tokens"] == collected.sequences.totals(0).items == tokens
    assert collected.samples() == []


def test_the_supervised_term_learns_from_answers(dataset):
    references = taught(dataset).references
    whole, answers = references.sequences(1, [0, 4]), references.answers(1, [0, 4])
    for row in range(2):
        thinking = int(whole.thinking[row])
        assert 0 < thinking < len(whole.completions[row])
        assert whole.active(row).all()
        assert answers.active(row).tolist() == [False] * thinking + [True] * (len(whole.completions[row]) - thinking)


def test_dropped_groups_are_refilled_with_fresh_prompts(loaded, dataset):
    """1, 3, 5, 7 have a spread; 0, 2, 4, 6 are constant."""
    made = collector(loaded, dataset, advantage={"refill": 2})
    found = collect(made, 1, [0, 1, 2], fresh=[4, 3, 5])
    assert len(found.sequences) == 3 * GROUP
    assert found.metrics["groups/refilled"] == 3
    assert found.metrics["groups/all_equal"] == 3
    assert len(found.samples()) == 6 * GROUP
    prompts = [dataset.prompt_tokens(i).tolist() for i in (1, 3, 5)]
    assert [prompt.tolist() for prompt in found.sequences.prompts] == [p for p in prompts for _ in range(GROUP)]
    alone = collect(collector(loaded, dataset), 1, [1, 3, 5])  # a sample depends on its prompt alone
    assert texts(found.sequences) == texts(alone.sequences)
    np.testing.assert_array_equal(found.sequences.advantages, alone.sequences.advantages)


def test_refilling_ends_after_its_rounds_and_asks_for_no_more_than_is_missing(loaded, dataset):
    made = collector(loaded, dataset, advantage={"refill": 1})
    found = collect(made, 1, [0, 1, 2], fresh=[4, 6])
    assert len(found.sequences) == GROUP
    assert found.metrics["groups/refilled"] == 2
    assert collect(made, 1, [1, 3]).metrics["groups/refilled"] == 0


@pytest.mark.parametrize("advantage", [{"baseline": "batch"}, {"scale": "batch"}], ids=["baseline", "scale"])
def test_where_the_whole_update_is_compared_fresh_prompts_bring_the_others_back(loaded, dataset, advantage):
    """Two equal groups are no longer flat beside groups that differ: then nothing is missing."""
    found = collect(collector(loaded, dataset, advantage={"refill": 2} | advantage), 1, [0, 2], fresh=[1, 3])
    assert found.metrics["groups/refilled"] == 2
    assert len(found.sequences) == 4 * GROUP


def test_a_prompt_that_comes_back_in_a_refill_is_sampled_anew(loaded, dataset):
    made = collector(loaded, dataset, advantage={"refill": 1})
    found = texts(collect(made, 1, [1, 0], fresh=[1]).sequences)
    assert found[:GROUP] != found[GROUP:]


STEERED = {
    "bias_close_think": -1.5,
    "punish_extra_think_end": -3.0,
    "min_think_tokens": 5,
    "think_end_early_bias": -4.0,
    "max_think_tokens": 12,
    "repetition_penalty": 1.2,
    "temperature": 0.8,
    "top_p": 0.9,
}


def test_the_trainer_sees_the_distribution_that_was_sampled_from(loaded, dataset):
    made = collector(loaded, dataset, generation=STEERED, loss={"sampler_correction": "token_truncate"})
    sequences = collect(made, 1, [1, 3, 5]).sequences
    assert any(inactive.any() for inactive in sequences.inactive)  # a close tag was forced
    rows = np.arange(len(sequences))
    batch, policy = sequences.batch(rows), Policy.of(loaded.model, 0.8)
    at = spots(batch.tokens, batch.starts, batch.completions, batch.mask)
    hidden = policy.stack.run(batch.tokens).hidden
    found, blind = (policy.score(hidden, at, adjust).logprobs for adjust in (sequences.adjust(rows), None))
    recorded = mx.where(batch.mask, batch.sampler_logprobs, 0.0)
    assert float(mx.abs(found - recorded).max()) < 1e-4
    assert float(mx.abs(blind - recorded).max()) > 0.1
    drawn = np.array(mx.where(batch.mask, batch.drawn_logprobs - batch.sampler_logprobs, 0.0))
    assert drawn.min() > -1e-5  # what top-p leaves is likelier than before
    assert drawn.max() > 1e-3


def test_a_row_without_a_reference_is_named_with_its_line(dataset):
    with pytest.raises(DataError, match=r"^some/rows\.jsonl:8: no reference completion.*update 5") as told:
        collect(taught(dataset), 5, [0, 7])
    assert "use_sft_on_answer" in told.value.hint


def test_completions_are_scored_while_others_are_decoded(loaded, dataset, monkeypatch):
    """In parts of four, in the order in which they end; the round comes out as if it had been scored whole."""
    monkeypatch.setattr("pipelines.training.rounds.PART_ROWS", 4)
    made = collector(loaded, dataset, rewards=("test_collect_letters", "test_collect_broken"))
    composer, events = made.roller.composer, []
    submit, evaluated = composer.submit, loaded.model.__class__.__call__

    def submitted(contexts, **options):
        events.append(len(contexts))
        return submit(contexts, **options)

    def called(*arguments, **keywords):
        events.append("model")
        return evaluated(*arguments, **keywords)

    monkeypatch.setattr(composer, "submit", submitted)
    monkeypatch.setattr(loaded.model.__class__, "__call__", called)
    found = made.roller.round(1, [0, 1, 3, 5, 6])
    sizes = [event for event in events if event != "model"]
    assert sum(sizes) == 5 * GROUP
    assert len(sizes) > 1
    assert "model" in events[events.index(sizes[0]) :]  # there was more to decode
    whole = composer.score(found.contexts)
    np.testing.assert_array_equal(found.scores.values, whole.values)
    np.testing.assert_array_equal(found.scores.totals, whole.totals)
    assert found.scores.failures == whole.failures
    assert len(whole.failures) == 2 * GROUP
    for row, context in enumerate(found.contexts):
        assert context.generated_text[:8] in loaded.tokenizer.decode(found.rollouts.completion(row).tolist())


def test_failures_are_judged_over_the_whole_round(loaded, dataset, monkeypatch):
    monkeypatch.setattr("pipelines.training.rounds.PART_ROWS", 1)
    made = collector(loaded, dataset, rewards=("test_collect_broken",))
    made.roller.composer.composer.max_failure_fraction = 0.5
    assert len(made.roller.round(1, [0, 1]).scores.failures) == GROUP  # half of the rows, all of some parts
    made.roller.composer.composer.max_failure_fraction = 0.49
    with pytest.raises(RewardError, match="4 of 8"):
        made.roller.round(1, [0, 1])
