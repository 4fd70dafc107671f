"""PPO through the train stage on the built-in model: resumes to the bit, small groups, and what a checkpoint holds."""

from functools import partial

import mlx.core as mx
import mlx_lm
import pytest
import train_world
from train_world import checkpoint, make_folder, quiet, records

from pipelines import preprocess, train
from pipelines.errors import TrainingError
from pipelines.models.save import load_weights
from pipelines.training.loop import Loop

STEPS = 4
PLUGIN = """
from pipelines.rewards import BaseReward, RewardRegistry

@RewardRegistry.register("always_one_to_ppo")
class AlwaysOne(BaseReward):
    def compute(self, context):
        return 1.0

@RewardRegistry.register("silent")
class Silent(BaseReward):
    def compute(self, context):
        return None

@RewardRegistry.register("shy")
class Shy(BaseReward):
    def compute(self, context):  # some completions have no score
        return None if len(context.generated_text) % 3 == 0 else 1.0

@RewardRegistry.register("letters_to_ppo")
class Letters(BaseReward):
    def compute(self, context):  # different texts differ
        return sum(i * ord(letter) for i, letter in enumerate(context.generated_text)) % 97 / 97
"""
DEFAULTS = {
    "trainer": {
        "algorithm": "ppo",
        "num_training_steps": STEPS,
        "ppo_batch_size": 3,
        "num_rollout_samples": 2,
        "grpo_beta": 0.05,
        "num_iterations": 2,
        "ppo": {"value_learning_rate": 0.01},
    },
    "rewards": [{"name": "letters_to_ppo"}],
    "checkpointing": {"save_every": 1, "keep_last_n": 9},
}
settings = partial(train_world.settings, defaults=DEFAULTS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twenty rows; the arrays are made once for all tests."""
    place = make_folder(tmp_path_factory.mktemp("train_ppo"), 20, PLUGIN)
    preprocess.run(settings(place, "none"))
    return place


def begun(monkeypatch, config, steps=2):
    """A run that ended after some updates as if time were up."""
    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_must_stop", lambda self, _started: self.progress.step >= steps)
        assert train.run(config, options=quiet()).status == "partial"
    return config


def ran(config):
    assert train.run(config, options=quiet()).summary["status"] == "finished"
    return config


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_a_run_that_stopped_goes_on_to_the_bit(folder, monkeypatch, lora):
    changes = {"model": {"use_lora": lora}}
    whole = ran(settings(folder, f"whole-{lora}", **changes))
    stopped = begun(monkeypatch, settings(folder, f"stopped-{lora}", **changes))
    ran(stopped)
    for name in ("optimizer", "value_head", "value_head_optimizer", "adapters" if lora else "model"):
        found, wanted = (checkpoint(config) / f"{name}.safetensors" for config in (stopped, whole))
        assert found.read_bytes() == wanted.read_bytes(), name
    assert records(stopped) == records(whole)


def test_a_checkpoint_holds_the_head_beside_a_model_that_mlx_lm_loads(folder):
    config = ran(settings(folder, "loadable", trainer={"num_training_steps": 2}))
    heads = [load_weights(checkpoint(config, step) / "value_head.safetensors") for step in (1, 2)]
    assert [head.keys() for head in heads] == [{"weight", "bias"}] * 2
    for name, leaf in heads[0].items():
        assert leaf.dtype == mx.float32
        assert leaf.any().item()
        assert not mx.array_equal(leaf, heads[1][name])
    assert not any("value_head" in name for name in load_weights(checkpoint(config, 2) / "model.safetensors"))
    model, tokenizer = mlx_lm.utils.load(str(checkpoint(config, 2)))
    logits = model(mx.array([tokenizer.encode("12+34=?")]))
    assert mx.isfinite(logits).all().item()


def test_without_optimizer_state_the_head_goes_on_from_its_weights(folder, monkeypatch):
    """The values before the next update are those of a run that never stopped; a head that began anew would say 0."""
    changes = {"checkpointing": {"save_optimizer_state": False, "save_every": 1}}
    whole = ran(settings(folder, "stateless-whole", **changes))
    config = begun(monkeypatch, settings(folder, "stateless", **changes))
    assert not list(checkpoint(config, 2).glob("*optimizer*"))
    ran(config)
    for name in ("critic/values/mean", "critic/returns/mean", "reward"):
        assert records(config)[2][name] == records(whole)[2][name] != 0


def test_what_a_run_logs(folder):
    config = ran(settings(folder, "logs"))
    first, *later = records(config)
    for record in (first, *later):
        assert record["mismatch_kl"] < 1e-5
        assert record["loss"] == pytest.approx(record["policy_loss"] + 0.5 * record["value_loss"], rel=1e-4, abs=1e-6)
        assert record["grad_norm"] > 0
        assert {"frac_reward_zero_std", "groups/all_equal"}.isdisjoint(record)
    assert (first["critic/values/mean"], first["kl"]) == (0, pytest.approx(0, abs=1e-6))
    assert first["critic/returns/mean"] > 0.05
    assert all(record["critic/values/mean"] != 0 and record["kl"] > 0 for record in later)


@pytest.mark.parametrize("prompts", [3, 1])
def test_groups_of_one_and_single_completions_train(folder, prompts):
    small = {"ppo_batch_size": prompts, "num_rollout_samples": 1, "num_training_steps": 2}
    config = ran(settings(folder, f"small-{prompts}", trainer=small))
    assert all(record["grad_norm"] > 0 for record in records(config))
    start, end = (load_weights(checkpoint(config, step) / "model.safetensors") for step in (1, 2))
    assert any(not mx.array_equal(start[name], leaf) for name, leaf in end.items())


def test_equal_rewards_still_teach(folder):
    """Nothing is compared within a group, so this is no dead update."""
    config = settings(folder, "equal", rewards=[{"name": "always_one_to_ppo"}], trainer={"abort_after_dead_updates": 2})
    assert all(record["grad_norm"] > 0 for record in records(ran(config)))


def test_completions_without_a_score_are_left_out(folder):
    config = ran(settings(folder, "shy", rewards=[{"name": "shy"}], trainer={"num_training_steps": 3}))
    samples = records(config, "samples.jsonl")
    advantages = {sample["advantage"] for sample in samples}
    assert advantages == {None, 1.0}
    assert all((sample["reward"] is None) == (sample["advantage"] is None) for sample in samples)


def test_updates_without_any_score_end_the_run(folder):
    config = settings(folder, "silent", rewards=[{"name": "silent"}], trainer={"abort_after_dead_updates": 3})
    with pytest.raises(TrainingError, match="last 3 updates taught nothing"):
        train.run(config, options=quiet())
    assert all("grad_norm" not in record for record in records(config))
    assert not any(
        leaf.any().item() for leaf in load_weights(checkpoint(config, 2) / "value_head.safetensors").values()
    )


def test_regions_and_the_supervised_term_go_with_it(folder):
    regional = {"use_dual_gradients": True, "use_sft_on_answer": True, "thinking_layer_end": 1, "answer_layer_start": 1}
    config = ran(settings(folder, "regional", trainer=regional | {"num_training_steps": 2}))
    for record in records(config):
        parts = record["loss/thinking"] + record["loss/answer"] + 0.2 * record["sft_loss"]
        assert record["loss"] == pytest.approx(parts, rel=1e-4, abs=1e-6)
        assert record["value_loss"] > 0
