"""Settings that contradict each other are refused by name; odd ones are only remarked upon."""

import pytest
from pydantic import ValidationError

from pipelines.config import ExperimentConfig, TrainerConfig, check_layer_ranges
from pipelines.config.layers import layer_ranges
from pipelines.config.loader import resolve
from pipelines.errors import ConfigError

COSINE = "trainer.lr_schedule_config={name: cosine_decay, arguments: "


@pytest.mark.parametrize(
    ("assignments", "keys"),
    [
        (
            ["trainer.num_training_steps=5", COSINE + "[1e-5, 100], warmup: 6}"],
            ["trainer.lr_schedule_config.warmup", "trainer.num_training_steps"],
        ),
        (
            ["trainer.num_training_steps=5", "trainer.num_iterations=2", COSINE + "[1e-5, 100], warmup: 11}"],
            ["trainer.lr_schedule_config.warmup", "trainer.num_iterations", "longer than the run of 10"],
        ),
        ([COSINE + "[1e-5]}"], ["trainer.lr_schedule_config.name", "trainer.lr_schedule_config.arguments"]),
        ([COSINE + "[1e-5, 1, 1, 1]}"], ["trainer.lr_schedule_config.name", "takes 2 or 3 arguments, not 4"]),
        ([COSINE + "[1e-5, 10.5]}"], ["trainer.lr_schedule_config.arguments", "argument 2 of cosine_decay"]),
        ([COSINE + "[1e-5, 0]}"], ["counts steps and cannot be 0"]),
        ([COSINE + "[-1e-5, 10]}"], ["trainer.lr_schedule_config.arguments", "negative"]),
        (["trainer.lr_schedule_config={name: constant, arguments: []}"], ["takes 1 arguments, not 0"]),
        (["trainer.lr_schedule_config={name: linear_schedule, arguments: [1, 0, 9.5]}"], ["argument 3 of linear"]),
        (
            ["trainer.ppo_batch_size=1", "trainer.num_rollout_samples=1"],
            ["trainer.num_rollout_samples", "trainer.ppo_batch_size", "trainer.grad_accum_steps"],
        ),
        (
            ["trainer.advantage.baseline=leave_one_out", "trainer.num_rollout_samples=1"],
            ["trainer.advantage.baseline", "trainer.num_rollout_samples"],
        ),
        (
            ["trainer.thinking_layer_start=5", "trainer.thinking_layer_end=4"],
            ["trainer.thinking_layer_start", "trainer.thinking_layer_end"],
        ),
        (
            ["trainer.answer_layer_start=5", "trainer.answer_layer_end=4"],
            ["trainer.answer_layer_start", "trainer.answer_layer_end"],
        ),
        (
            ["trainer.algorithm=sft", "trainer.use_sft_on_answer=true"],
            ["trainer.algorithm", "trainer.use_sft_on_answer"],
        ),
        (["model.quantize_bits=4"], ["model.quantize_bits", "model.use_lora"]),
        (["model.use_lora=true", "model.lora_layers=0"], ["model.lora_layers", "model.use_lora"]),
        (["generation.min_think_tokens=64"], ["generation.min_think_tokens", "data.max_gen_len"]),
        (
            ["generation.min_think_tokens=9", "generation.max_think_tokens=8"],
            ["generation.min_think_tokens", "generation.max_think_tokens"],
        ),
        (["generation.think_start_tag=</think>"], ["generation.think_start_tag", "generation.think_end_tag"]),
        (["data.loader_type=jsnl"], ["data.loader_type", "plugins"]),
        (["data.loader_type=npy", "data.train_path=a.jsonl.gz"], ["data.loader_type", "data.train_path"]),
        (["data.loader_type=npy"], ["data.loader_type", "data.train_path", "builtin:arithmetic"]),
        (["data.val_path=b_prompts.npy"], ["data.loader_type", "data.val_path"]),
        (["data.val_path=b.jsonl", "data.val_fraction=0.1"], ["data.val_path", "data.val_fraction"]),
        (["rewards=[]"], ["rewards", "trainer.algorithm"]),
        (["trainer.algorithm=ppo", "trainer.loss.level=sequence"], ["trainer.algorithm", "trainer.loss.level"]),
        (["trainer.algorithm=ppo", "trainer.loss.type=gspo"], ["trainer.algorithm", "trainer.loss.type"]),
        (["rewards=[{name: a, weight: 0}, {name: b, weight: 0.0}]"], ["rewards.0.weight", "rewards.1.weight"]),
        (
            ["trainer.advantage.refill=1", "trainer.advantage.drop_zero_variance_groups=false"],
            ["trainer.advantage.refill", "trainer.advantage.drop_zero_variance_groups"],
        ),
        (
            ["trainer.loss.sampler_correction=token_mask", "trainer.loss.sampler_correction_cap=1"],
            ["trainer.loss.sampler_correction", "trainer.loss.sampler_correction_cap"],
        ),
    ],
)
def test_conflicts_name_their_keys(assignments, keys):
    with pytest.raises(ConfigError) as caught:
        resolve([], assignments, {})
    assert all(key in caught.value.message for key in keys)
    assert caught.value.hint


@pytest.mark.parametrize(
    "assignments",
    [
        ["trainer.algorithm=sft", "trainer.ppo_batch_size=1", "trainer.num_rollout_samples=1", "rewards=[]"],
        ["trainer.grad_accum_steps=2", "trainer.ppo_batch_size=1", "trainer.num_rollout_samples=1"],
        ["trainer.algorithm=ppo", "trainer.ppo_batch_size=1", "trainer.num_rollout_samples=1"],
        ["trainer.algorithm=ppo", "trainer.advantage.baseline=group", "trainer.num_rollout_samples=1"],
        ["data.loader_type=mine", "plugins=[loader.py]"],
        ["data.loader_type=npy", "data.train_path=arrays/train"],
        ["data.train_path=rows.jsonl.gz", "data.val_fraction=0.1"],
        ["rewards=[{name: a, weight: 0}, {name: a, weight: 0.1}]"],
        ["trainer.thinking_layer_start=5"],
        ["trainer.num_training_steps=6", COSINE + "[3e-4, 100], warmup: 6}"],
        ["trainer.num_training_steps=6", "trainer.num_iterations=2", COSINE + "[3e-4, 100], warmup: 12}"],
        ["trainer.lr_schedule_config={name: exponential_decay, arguments: [3e-4, 0.9]}"],
        ["trainer.lr_schedule_config={name: step_decay, arguments: [3e-4, 0.9, 10]}"],
    ],
)
def test_what_is_unusual_but_consistent_loads(assignments):
    assert resolve([], assignments, {}).config != ExperimentConfig()


def test_a_conflict_tells_where_each_value_comes_from(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("generation:\n  min_think_tokens: 70\n")
    with pytest.raises(ConfigError) as caught:
        resolve([path], [], {})
    assert f"generation.min_think_tokens ({path}:2) and data.max_gen_len (default): " in caught.value.message


def test_sections_made_in_code_have_to_agree_too():
    with pytest.raises(ValidationError, match=r"trainer\.num_rollout_samples"):
        ExperimentConfig(trainer=TrainerConfig(ppo_batch_size=1, num_rollout_samples=1))


@pytest.mark.parametrize(
    ("assignments", "parts"),
    [
        (["trainer.num_rollout_samples=1"], ["trainer.num_rollout_samples", "trainer.advantage.baseline"]),
        (["generation.bias_answer_start=6"], ["generation.bias_answer_start", "generation.answer_start_tag"]),
        (
            ["generation.think_end_early_bias=1", "generation.min_think_tokens=4"],
            ["generation.think_end_early_bias", "pushes", "generation.min_think_tokens"],
        ),
        ([COSINE + "[1e-5, 110]}"], ["trainer.learning_rate", "trainer.lr_schedule_config.arguments"]),
        (["trainer.loss.type=cispo"], ["trainer.loss.epsilon_high", "cap"]),
        (["trainer.algorithm=ppo", "trainer.grpo_beta=0.1"], ["trainer.loss.kl_estimator is k3", "ppo", "k1"]),
        (["trainer.answer_layer_end=3"], ["trainer.answer_layer_end", "no effect"]),
        (
            ["trainer.thinking_gradient_weight=0.5"],
            ["trainer.thinking_gradient_weight: no effect", "use_dual_gradients"],
        ),
        (
            ["trainer.algorithm=sft", "rewards=[]", "trainer.grpo_beta=0.1", "trainer.loss.entropy_coef=0.01"],
            ["trainer.grpo_beta, trainer.loss.entropy_coef: no effect", "sft"],
        ),
        (["model.ref_model_path=x"], ["model.ref_model_path", "trainer.grpo_beta"]),
        (
            ["model.ref_model_path=x", "trainer.grpo_beta=0.1", "model.use_lora=true"],
            ["model.ref_model_path", "model.use_lora"],
        ),
        (["generation.max_think_tokens=64"], ["generation.max_think_tokens", "data.max_gen_len"]),
        (
            ["generation.top_p=0.9", "generation.min_p=0.1"],
            ["generation.top_p and generation.min_p", "biases", "trainer.loss.sampler_correction"],
        ),
        ([COSINE + "[3e-4, 60]}"], ["trainer.lr_schedule_config", "61 of 110 optimizer steps", "49 of them"]),
        (
            ["trainer.lr_schedule_config={name: linear_schedule, arguments: [3e-4, 0, 50], warmup: 9}"],
            ["trainer.lr_schedule_config", "60 of 110 optimizer steps", "50 of them"],
        ),
        (["generation.top_k=20"], ["generation.top_k:", "trainer.loss.sampler_correction"]),
        (
            ["trainer.loss.sampler_correction=token_truncate"],
            ["trainer.loss.sampler_correction is token_truncate", "generation.top_p", "next to nothing"],
        ),
    ],
)
def test_odd_settings_are_remarked_upon_once(assignments, parts):
    (warning,) = resolve([], assignments, {}).warnings
    assert all(part in warning for part in parts)


@pytest.mark.parametrize(
    "assignments",
    [
        [],
        ["generation.bias_answer_start=6", "generation.answer_start_tag=<answer>"],
        ["generation.think_end_early_bias=-1", "generation.min_think_tokens=4"],
        ["trainer.loss.type=cispo", "trainer.loss.epsilon_high=5"],
        ["trainer.answer_layer_end=3", "trainer.use_dual_gradients=true", "trainer.answer_gradient_weight=2"],
        ["trainer.num_rollout_samples=1", "trainer.advantage.baseline=batch"],
        ["trainer.algorithm=ppo", "trainer.num_rollout_samples=1"],
        [COSINE + "[3e-4, 110]}"],
        [COSINE + "[3e-4, 60, 1e-5]}"],
        ["trainer.lr_schedule_config={name: exponential_decay, arguments: [3e-4, 0.9]}"],
        ["generation.top_p=0.9", "trainer.loss.sampler_correction=token_truncate"],
        ["generation.top_p=0.9", "trainer.algorithm=sft", "rewards=[]"],
        ["generation.top_k=20", "generation.temperature=0"],
    ],
)
def test_ordinary_settings_are_not(assignments):
    assert resolve([], assignments, {}).warnings == []


SEED = TrainerConfig(
    use_dual_gradients=True,
    thinking_layer_start=18,
    thinking_layer_end=30,
    answer_layer_start=24,
    answer_layer_end=32,
)


def test_ranges_inside_the_model_are_taken_as_they_are():
    ranges = layer_ranges(SEED, 36)
    assert (ranges.thinking, ranges.answer, ranges.warnings) == (range(18, 31), range(24, 33), ())


def test_an_end_beyond_the_last_layer_is_clipped_with_a_warning():
    ranges = layer_ranges(SEED, 32)
    assert ranges.answer == range(24, 32)
    (warning,) = check_layer_ranges(ExperimentConfig(trainer=SEED), 32)
    assert all(part in warning for part in ("trainer.answer_layer_end is 32", "model.model_path", "clipped to 31"))


def test_a_start_beyond_the_last_layer_is_an_error():
    with pytest.raises(ConfigError, match=r"trainer\.answer_layer_start is 24.*model\.model_path has 24 layers"):
        check_layer_ranges(ExperimentConfig(trainer=SEED), 24)


def test_null_ends_mean_all_layers_and_unused_ranges_are_not_checked():
    assert layer_ranges(TrainerConfig(), 3).thinking == range(3)
    assert layer_ranges(TrainerConfig(answer_layer_start=1), 3).answer == range(1, 3)
    assert check_layer_ranges(ExperimentConfig(trainer=TrainerConfig(answer_layer_start=9)), 3) == []


def test_batch_arithmetic():
    trainer = TrainerConfig(ppo_batch_size=4, grad_accum_steps=3, num_rollout_samples=5)
    assert (trainer.prompts_per_update, trainer.completions_per_update) == (12, 60)
