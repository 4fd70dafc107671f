"""What was set and does nothing is told by name, with what it would need; what it needs silences the warning."""

import pytest

from pipelines.config import ExperimentConfig
from pipelines.config.loader import resolve

DUAL, SUPERVISED = "trainer.use_dual_gradients=true", "trainer.use_sft_on_answer=true"
WARM = "trainer.lr_schedule_config={name: constant, arguments: [3e-4], warmup_init: 1e-5"
CASES = {
    # what does nothing: (further settings beside which it does nothing, settings beside which it does something)
    "trainer.answer_layer_end=1": ([], [DUAL]),
    "trainer.thinking_layer_start=1": ([], [SUPERVISED]),
    "trainer.answer_gradient_weight=2": ([SUPERVISED], [DUAL]),
    "trainer.dual_train_other_params=true": ([], [SUPERVISED]),
    "trainer.sft_mode=answer_only": ([DUAL], [SUPERVISED]),
    "trainer.sft_weight=0.5": ([], [SUPERVISED]),
    "trainer.sft_thinking_weight=0.5": ([SUPERVISED], [SUPERVISED, "trainer.sft_mode=weighted"]),
    "trainer.sft_answer_weight=0.5": ([], [SUPERVISED, "trainer.sft_mode=weighted"]),
    "trainer.use_sft_on_answer=true": (["trainer.sft_weight=0"], []),
    "trainer.ppo.gamma=0.9": ([], ["trainer.algorithm=ppo"]),
    "trainer.advantage.baseline=batch": (["trainer.algorithm=ppo"], []),
    "trainer.advantage.epsilon=0.1": (["trainer.advantage.scale=none"], []),
    "trainer.advantage.scale=batch": (["trainer.advantage.aggregation=normalize_then_sum"], []),
    "trainer.loss.kl_estimator=k2": ([], ["trainer.grpo_beta=0.1"]),
    "trainer.loss.kl_bias_correction=true": (
        ["trainer.algorithm=ppo", "trainer.loss.kl_estimator=k1", "trainer.grpo_beta=0.1"],
        ["trainer.grpo_beta=0.1"],
    ),
    "trainer.loss.delta=4": (["trainer.loss.type=sapo"], ["trainer.loss.type=gspo"]),
    "trainer.loss.epsilon=0.1": (["trainer.loss.type=cispo", "trainer.loss.epsilon_high=5"], []),
    "trainer.loss.epsilon_high=0.2": (["trainer.loss.type=sapo"], ["trainer.loss.type=dr_grpo"]),
    "trainer.loss.sampler_correction_cap=2": (
        [],
        ["trainer.loss.sampler_correction=token_mask", "generation.top_p=0.9"],
    ),
    "trainer.grpo_beta=0.1": (["trainer.algorithm=sft"], []),
    "trainer.loss.type=grpo": (["trainer.algorithm=sft"], []),
    "trainer.advantage.refill=1": (["trainer.algorithm=sft"], ["trainer.algorithm=ppo"]),
    "trainer.num_rollout_samples=8": (["trainer.algorithm=sft"], []),
    f"{WARM}}}": ([], [f"{WARM}, warmup: 2}}"]),
    "model.lora_rank=4": ([], ["model.use_lora=true"]),
    "generation.think_end_early_bias=-1": ([], ["generation.min_think_tokens=4"]),
    "generation.min_think_tokens=4": ([], ["generation.bias_close_think=-1"]),
    "generation.bias_close_think=-1": (["generation.think_end_tag=''"], []),
    "generation.max_think_tokens=9": (["generation.think_end_tag=''"], []),
    "generation.punish_reopen_think=-1": (["generation.think_start_tag=''"], []),
}


@pytest.mark.parametrize("setting", CASES)
def test_what_does_nothing_is_told_once(setting):
    beside, needed = CASES[setting]
    key = setting.partition("=")[0] + (".warmup_init" if "warmup_init" in setting else "")
    told = [text for text in resolve([], [*beside, setting], {}).warnings if ": no effect" in text]
    (named,) = (text for text in told if key in text.partition(": no effect")[0].split(", "))
    assert named.partition(": no effect ")[2]
    assert resolve([], [*needed, setting], {}).warnings == []


def test_defaults_that_are_written_out_are_not_told(tmp_path):
    path = tmp_path / "all.yaml"
    path.write_text(ExperimentConfig().model_dump_json())
    assert resolve([path], [], {}).warnings == []


def test_an_algorithm_of_a_plugin_may_read_any_setting():
    assert resolve([], ["plugins=[mine.py]", "trainer.algorithm=mine", "trainer.ppo.gamma=0.9"], {}).warnings == []
