"""The self-check: silent on a healthy run, one line and the end on one that could not learn."""

import mlx.core as mx
import numpy as np
import pytest
from mlx import nn
from mlx.utils import tree_map
from mlx_lm.models.llama import Model, ModelArgs

from pipelines.algorithms.grpo import Grpo
from pipelines.algorithms.sft import Sft
from pipelines.config import LossConfig, LrScheduleConfig, ModelConfig, TrainerConfig
from pipelines.errors import TrainingError
from pipelines.models import tiny
from pipelines.models.leaves import leaves
from pipelines.models.lora import apply_lora
from pipelines.training.assembly import make_updater
from pipelines.training.sequences import Sequences

LAYERS, VOCABULARY, ROWS = 4, 40, 4
DUAL = {
    "use_dual_gradients": True,
    "thinking_layer_start": 0,
    "thinking_layer_end": 1,
    "answer_layer_start": 2,
    "answer_layer_end": 3,
}


def make_model(seed=0, dtype=mx.float32):
    """Four random layers; logits of a natural spread."""
    arguments = tiny.config() | {"num_hidden_layers": LAYERS, "hidden_size": 32, "intermediate_size": 48}
    arguments |= {"num_attention_heads": 1, "num_key_value_heads": 1, "vocab_size": VOCABULARY}
    model = Model(ModelArgs.from_dict(arguments))
    mx.random.seed(seed)
    model.update(tree_map(lambda w: w if w.ndim == 1 else 0.3 * mx.random.normal(w.shape), model.parameters()))
    model.set_dtype(dtype)
    model.eval()
    return model


def make(model, *, algorithm=Grpo, full=True, temperature=1.0, dropout=False, **changes):
    """An updater with settings of the trainer."""
    settings = {"learning_rate": 1e-3, "lr_schedule_config": None} | changes
    return make_updater(
        model,
        algorithm(TrainerConfig(**settings)),
        None,
        full_finetuning=full,
        temperature=temperature,
        micro_batch_tokens=10_000,
        budget_tokens=9,
        dropout=dropout,
    )


def rollouts(model, *, seed=1, temperature=1.0, advantages=(1.0, -1.0, 0.5, -0.5), thinking=(2, 3, 1, 2)):
    """Rows with the log-probabilities that a sampler of this temperature would have noted."""
    rng = np.random.default_rng(seed)
    lengths = [5, 7, 4, 6]
    rows = Sequences(
        prompts=[rng.integers(0, VOCABULARY, 3) for _ in range(ROWS)],
        completions=[rng.integers(0, VOCABULARY, length) for length in lengths],
        advantages=np.array(advantages, np.float32),
        silent=np.zeros(ROWS, bool),
        thinking=np.array(thinking),
    )
    return Sequences(**(vars(rows) | {"sampler_logprobs": sampled(model, rows, temperature)}))


def sampled(model, rows, temperature):
    """log softmax(logits / temperature) of each completion, one row at a time."""
    found = []
    for prompt, completion in zip(rows.prompts, rows.completions, strict=True):
        logits = model(mx.array(np.concatenate([prompt, completion]))[None])[0, len(prompt) - 1 : -1]
        logprobs = nn.log_softmax(logits.astype(mx.float32) / temperature, axis=-1)
        found.append(np.array(mx.take_along_axis(logprobs, mx.array(completion)[:, None], axis=-1)[:, 0]))
    return found


def nothing():
    """An update whose groups were all dropped."""
    return Sequences([], [], np.zeros(0, np.float32), np.zeros(0, bool))


def references():
    rows = rollouts(make_model(), seed=7)
    return Sequences(rows.prompts, rows.completions, np.ones(ROWS, np.float32), rows.silent, rows.thinking)


def learn(made, **changes):
    """One update from rows that the model itself has just sampled."""
    return made.update(rollouts(made.policy.model, **changes))


def fault(made, *arguments, **changes):
    """The message and hint with which an update ends, each one line."""
    with pytest.raises(TrainingError) as told:
        made.update(*arguments) if arguments else learn(made, **changes)
    assert told.value.message.startswith("self-check: ")
    assert "\n" not in told.value.message + told.value.hint
    return told.value.message, told.value.hint


class Cut(nn.Module):
    """A block whose output hides its gradient."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def __call__(self, x):
        return mx.stop_gradient(self.inner(x))


class CutBelow(Cut):
    """A block that hides the gradient from what lies below it."""

    use_sliding = False

    def __call__(self, x, *arguments, **keywords):
        return self.inner(mx.stop_gradient(x), *arguments, **keywords)


# Healthy models.


@pytest.mark.parametrize(
    "changes", [{}, DUAL, {"dual_train_other_params": True} | DUAL], ids=["full", "dual", "dual-others"]
)
def test_a_healthy_model_passes_in_its_first_update(changes):
    made = make(make_model(), **changes)
    assert made.check.pending == set(leaves(made.policy.model.trainable_parameters()))
    report = learn(made)
    assert made.check.done
    assert report["mismatch_kl"] < 1e-5
    assert report["ratio/mean"] == pytest.approx(1, abs=1e-5)


def test_once_done_it_costs_nothing():
    made, calls = make(make_model()), []
    weights = made.optimizer.exact_weights
    made.optimizer.exact_weights = lambda: calls.append(None) or weights()
    learn(made)
    assert (made.check.done, len(calls)) == (True, 2)
    learn(made, seed=2)
    assert len(calls) == 2


def adapted(**changes):
    model = make_model()
    apply_lora(model, ModelConfig(use_lora=True, lora_rank=2, **changes), seed=0)
    return model


def test_loras_a_counts_from_the_update_in_which_b_is_no_longer_zero():
    made = make(adapted(), full=False)
    learn(made)
    assert made.check.agreed
    assert made.check.pending
    assert all(name.endswith("lora_a") for name in made.check.pending)
    learn(made, seed=2)
    assert made.check.done


def test_loras_a_may_be_found_stuck_later():
    """As if another part of the program put A back after every step."""
    made = make(adapted(), full=False)
    learn(made)
    name = "model.layers.1.mlp.up_proj.lora_a"
    step = made.optimizer.step

    def undone(*arguments):
        module = made.policy.model.layers[1].mlp.up_proj
        before = module.lora_a
        rate = step(*arguments)
        module.lora_a = before
        return rate

    made.optimizer.step = undone
    message, hint = fault(made, seed=2)
    assert message == f"self-check: {name} received a gradient and did not move at learning rate 0.001"
    assert "learning_rate" in hint


def test_dropout_makes_sampler_and_trainer_differ_and_is_meant_to():
    model = adapted(lora_dropout=0.5)
    made = make(model, full=False, dropout=True, learning_rate=0.05)
    learn(made)
    report = learn(made, seed=2)
    assert report["mismatch_kl"] > made.check.most_mismatch  # dropout does change what the gradient sees
    assert made.check.done


def test_a_region_that_is_empty_at_first_is_looked_at_when_it_is_not():
    made = make(make_model(), **DUAL)
    learn(made, thinking=(0, 0, 0, 0))
    assert {int(name.split(".")[2]) for name in made.check.pending} == {0, 1}
    learn(made, seed=2)
    assert made.check.done


def test_a_region_whose_tokens_have_no_advantage_is_looked_at_later():
    """The rows with an advantage are all answer."""
    made = make(make_model(), **DUAL)
    learn(made, advantages=(1.0, -1.0, 0.0, 0.0), thinking=(0, 0, 4, 6))
    assert {int(name.split(".")[2]) for name in made.check.pending} == {0, 1}
    learn(made, seed=2)
    assert made.check.done


def test_updates_without_advantages_do_not_count():
    made = make(make_model(), grpo_beta=0.0)
    pending = set(made.check.pending)
    learn(made, advantages=(0.0, 0.0, 0.0, 0.0))
    assert (made.check.pending, made.check.agreed) == (pending, False)
    learn(made, seed=2)
    assert made.check.done


def test_the_supervised_term_alone_leaves_the_sampler_to_a_later_update():
    made = make(make_model(), use_sft_on_answer=True, sft_mode="all", dual_train_other_params=True)
    made.update(nothing(), references())
    assert not made.check.pending
    assert not made.check.done
    message, _ = fault(made, rollouts(made.policy.model, temperature=0.7), references())
    assert "sampler and trainer differ" in message


def test_each_term_answers_for_its_own_leaves():
    made = make(make_model(), **DUAL, use_sft_on_answer=True, sft_mode="answer_only")
    made.update(nothing(), references())
    assert {int(name.split(".")[2]) for name in made.check.pending} == {0, 1}
    learn(made)
    assert made.check.done


def test_teacher_forcing_has_no_sampler_to_agree_with():
    made = make(make_model(), algorithm=Sft)
    made.update(references())
    assert made.check.done


def test_tokens_that_the_entropy_filter_left_out_teach_nothing():
    """One token is left to learn from, and it lies in one region."""
    made = make(make_model(), **DUAL, loss=LossConfig(top_entropy_quantile=1e-6))
    learn(made)
    layers = {int(name.split(".")[2]) for name in made.check.pending}
    assert layers in ({0, 1}, {2, 3})


def test_tokens_that_the_clip_stopped_teach_nothing():
    """LoRA's A is due in the second step from a batch, where every row has left the narrow range of gspo."""
    model = make_model()
    apply_lora(model, ModelConfig(use_lora=True, lora_rank=2), 0)
    narrow = LossConfig(type="gspo", epsilon=3e-4, epsilon_high=4e-4)
    made = make(model, full=False, loss=narrow, num_iterations=2, learning_rate=0.01)
    assert learn(made)["clip_ratio/region_mean"] == 0.5  # of both steps
    assert {name.rpartition(".")[2] for name in made.check.pending} == {"lora_a"}
    learn(made)
    assert made.check.done


# Steps that are too small.


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
def test_a_rate_of_zero_waits(dtype):
    schedule = LrScheduleConfig(name="constant", arguments=(0.3,), warmup=3, warmup_init=0.0)
    made = make(make_model(dtype=dtype), lr_schedule_config=schedule, master_weights="none")
    pending = set(made.check.pending)
    assert learn(made)["learning_rate"] == 0
    assert made.check.agreed
    assert made.check.pending == pending
    learn(made, seed=2)
    assert made.check.done


def test_the_first_steps_of_a_warm_up_may_be_lost_in_float32():
    """A step of 1e-8 is less than half a unit in the last place of a norm's 1."""
    schedule = LrScheduleConfig(name="constant", arguments=(1e-6,), warmup=3, warmup_init=1e-8)
    made = make(make_model(), lr_schedule_config=schedule)
    learn(made)
    assert made.check.pending
    assert all("norm" in name for name in made.check.pending)
    learn(made, seed=2)
    assert made.check.done


def test_a_rate_that_stays_too_small_for_float32_ends_the_run():
    message, hint = fault(make(make_model(), learning_rate=1e-9))
    assert "norm.weight" in message
    assert message.endswith("did not move at learning rate 1e-09")
    assert "master_weights" not in hint
    assert "trainer.learning_rate" in hint


def test_a_16_bit_model_without_master_weights():
    made = make(make_model(dtype=mx.bfloat16), learning_rate=1e-6, master_weights="none")
    message, hint = fault(made)
    assert "received a gradient and did not move at learning rate 1e-06" in message
    assert "trainer.master_weights=float32" in hint


def test_a_16_bit_model_is_not_given_a_warm_up_to_find_out():
    schedule = LrScheduleConfig(name="constant", arguments=(1e-6,), warmup=100, warmup_init=1e-8)
    made = make(make_model(dtype=mx.bfloat16), lr_schedule_config=schedule, master_weights="none")
    assert "trainer.master_weights" in fault(made)[1]


def test_a_16_bit_model_with_master_weights_passes():
    made = make(make_model(dtype=mx.bfloat16), learning_rate=1e-6)
    learn(made)
    assert made.check.done


# Gradients that do not arrive.


def test_a_module_that_the_model_does_not_use_is_left_alone():
    model = make_model()
    model.model.layers[1].spare = nn.Linear(2, 2, bias=False)
    made = make(model)
    learn(made)
    assert made.check.done
    assert not any("spare" in name for name in leaves(model.trainable_parameters()))


def test_a_module_behind_a_cut():
    model = make_model()
    model.model.layers[2].mlp = Cut(model.model.layers[2].mlp)
    message, hint = fault(make(model))
    assert "model.layers.2.mlp.inner.down_proj.weight (and 3 more) received no gradient" in message
    assert "freeze them" in hint


def test_a_whole_range_behind_a_cut():
    """No leaf of the thinking pass gets anything: that is no region without tokens."""
    model = make_model()
    model.model.layers[2] = CutBelow(model.model.layers[2])
    message, _ = fault(make(model, **DUAL))
    assert "model.layers.0." in message
    assert "(and 17 more) received no gradient" in message


def test_a_leaf_without_gradient_in_an_update_that_teaches_nothing_is_no_fault():
    model = make_model()
    model.model.layers[1].mlp = Cut(model.model.layers[1].mlp)
    made = make(model)
    learn(made, advantages=(0.0, 0.0, 0.0, 0.0))
    assert "layers.1.mlp" in fault(made, seed=2)[0]


# Sampler and trainer.


@pytest.mark.parametrize("temperature", [0.7, 1.3])
def test_a_sampler_of_another_temperature(temperature):
    made = make(make_model())
    before = {name: np.array(leaf) for name, leaf in leaves(made.policy.model.parameters()).items()}
    message, hint = fault(made, temperature=temperature)
    assert "sampler and trainer differ by " in message
    assert message.endswith("nats per token (at most 0.001 is rounding)")
    assert "generation.rollout_batch_size=1" in hint
    for name, leaf in leaves(made.policy.model.parameters()).items():  # this is seen before the step
        assert np.array_equal(before[name], np.array(leaf)), name


def test_a_trainer_of_the_same_temperature_agrees():
    made = make(make_model(), temperature=0.7)
    assert learn(made, temperature=0.7)["mismatch_kl"] < 1e-5
    assert made.check.done


@pytest.mark.parametrize("wrong", [np.nan, -np.inf])
def test_a_sampler_that_says_no_number(wrong):
    made = make(make_model())
    rows = rollouts(made.policy.model)
    rows.sampler_logprobs[1][2] = wrong
    assert "sampler and trainer differ by " in fault(made, rows)[0]


def test_rounding_of_16_bits_is_no_disagreement():
    model = make_model(dtype=mx.bfloat16)
    made = make(model)
    rows = rollouts(model)
    noise = np.random.default_rng(3)
    near = [row + noise.uniform(-0.1, 0.1, len(row)).astype(np.float32) for row in rows.sampler_logprobs]
    report = made.update(Sequences(**(vars(rows) | {"sampler_logprobs": near})))
    assert 1e-3 < report["mismatch_kl"] < 0.1
    assert made.check.agreed


def test_the_policy_must_be_the_one_that_was_noted():
    made = make(make_model(), num_iterations=2)
    rows = rollouts(made.policy.model)
    recorded = made.recorder.record(rows)
    shifted = Sequences(**(vars(recorded) | {"old_logprobs": [row - 0.5 for row in recorded.old_logprobs]}))
    with pytest.raises(TrainingError, match=r"on-policy ratio is 1\.649, not 1"):
        made._step(shifted, None)
