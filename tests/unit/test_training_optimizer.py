"""AdamW as a run uses it: the schedule, bias correction, weight decay, master weights, and its state on disk."""

import mlx.core as mx
import numpy as np
import pytest
from mlx import nn

from pipelines import backend
from pipelines.config import LrScheduleConfig, TrainerConfig
from pipelines.training.optimizer import Optimizer, learning_rate

GRADIENT = [[0.5, -0.25], [1.0, 0.0]]


class Weights(nn.Module):
    """One matrix that nothing is computed with."""

    def __init__(self, values, dtype=mx.float32):
        super().__init__()
        self.weight = mx.array(values).astype(dtype)


def optimizer(values=((1.0, 2.0), (3.0, 4.0)), dtype=mx.float32, full_finetuning=True, **settings):
    config = TrainerConfig(**({"learning_rate": 0.1, "optimizer_weight_decay": 0.0, "grad_clip_norm": 0.0} | settings))
    return Optimizer(Weights(values, dtype), config, full_finetuning=full_finetuning)


def step(made, gradient=GRADIENT, times=1):
    rate = 0.0
    for _ in range(times):
        rate = made.step({"weight": mx.array(gradient)}, float(np.linalg.norm(gradient)))
    return rate


def schedule(name, arguments, **rest):
    return learning_rate(TrainerConfig(lr_schedule_config=LrScheduleConfig(name=name, arguments=arguments, **rest)))


@pytest.mark.parametrize(
    ("step", "rate"),
    [(0, 1.0e-6), (100, 4.6e-6), (250, 1.0e-5), (750, 5.51e-6), (1251, 1.0e-6), (2499, 1.0e-6), (100_000, 1.0e-6)],
)
def test_the_schedule_of_the_acceptance_configuration(step, rate):
    found = schedule("cosine_decay", (1e-5, 1000, 1e-6), warmup=250)
    assert float(found(mx.array(step))) == pytest.approx(rate, rel=1e-3)


def test_other_schedules():  # mlx-lm lets the peak stand for two steps
    linear = schedule("linear_schedule", (3e-4, 3e-5, 100), warmup=10, warmup_init=0.0)
    assert [float(linear(mx.array(n))) for n in (0, 5, 10, 60, 500)] == pytest.approx(
        [0, 1.5e-4, 3e-4, 1.677e-4, 3e-5], rel=1e-5
    )
    constant = schedule("constant", (0.5,), warmup=5)
    assert [float(constant(mx.array(n))) for n in (0, 5, 7, 999)] == pytest.approx([0.05, 0.5, 0.5, 0.5])
    without = learning_rate(TrainerConfig(learning_rate=0.25))
    assert float(without(mx.array(3))) == 0.25


def test_the_rate_that_a_step_used_is_returned():
    made = optimizer(lr_schedule_config=LrScheduleConfig(name="constant", arguments=(0.5,), warmup=5))
    rates = [step(made) for _ in range(7)]
    assert rates == pytest.approx([0.05, 0.14, 0.23, 0.32, 0.41, 0.5, 0.5])


@pytest.mark.parametrize("beta2", [0.95, 0.999])
def test_bias_correction_makes_the_first_step_as_long_as_the_rate(beta2):
    made = optimizer(optimizer_beta2=beta2)
    step(made, [[1e-3, -2.0], [30.0, 0.0]])
    moved = np.array(made.model.weight) - [[1, 2], [3, 4]]
    np.testing.assert_allclose(moved, [[-0.1, 0.1], [-0.1, 0]], rtol=1e-3)


def test_weight_decay_is_decoupled():
    made = optimizer(optimizer_weight_decay=0.5)
    step(made, [[0.0, 0.0], [0.0, 0.0]])
    np.testing.assert_allclose(np.array(made.model.weight), 0.95 * np.array([[1, 2], [3, 4]]), rtol=1e-6)


def test_clipping_scales_long_gradients_and_leaves_short_ones():
    """Adam forgets scale, but not between steps: moments tell what it was given."""
    made = optimizer(grad_clip_norm=0.5, optimizer_beta1=0.0)
    step(made, [[3.0, 0.0], [4.0, 0.0]])
    np.testing.assert_allclose(np.array(made.adam.state["weight"]["m"]), [[0.3, 0], [0.4, 0]], rtol=1e-5)
    step(made, [[0.03, 0.0], [0.04, 0.0]])
    np.testing.assert_allclose(np.array(made.adam.state["weight"]["m"]), [[0.03, 0], [0.04, 0]], rtol=1e-5)


def test_small_updates_of_16_bit_weights_need_master_weights():
    lost = optimizer(dtype=mx.bfloat16, learning_rate=1e-6, master_weights="none")
    kept = optimizer(dtype=mx.bfloat16, learning_rate=1e-6)
    assert lost.master is None
    step(lost, times=20)
    step(kept, times=20)
    assert lost.model.weight.dtype == kept.model.weight.dtype == mx.bfloat16
    assert np.array(lost.model.weight.astype(mx.float32)).tolist() == [[1, 2], [3, 4]]
    master = kept.exact_weights()["weight"]
    assert master.dtype == mx.float32
    np.testing.assert_allclose(np.array(master)[0] - [1, 2], [-2e-5, 2e-5], rtol=0.05)
    step(lost, times=2500)
    step(kept, times=2500)
    assert np.array(lost.model.weight.astype(mx.float32)).tolist() == [[1, 2], [3, 4]]
    assert float(kept.model.weight[0, 0].astype(mx.float32)) < 1  # in time the 16-bit weight follows


@pytest.mark.parametrize(
    ("dtype", "full_finetuning", "choice", "wanted"),
    [
        (mx.bfloat16, True, "auto", True),
        (mx.float16, True, "auto", True),
        (mx.float32, True, "auto", False),
        (mx.bfloat16, False, "auto", False),
        (mx.bfloat16, False, "float32", True),
        (mx.bfloat16, True, "none", False),
    ],
)
def test_who_gets_master_weights(dtype, full_finetuning, choice, wanted):
    made = optimizer(dtype=dtype, full_finetuning=full_finetuning, master_weights=choice)
    assert (made.master is not None) == wanted


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
def test_state_on_disk_goes_on_to_the_bit(tmp_path, dtype):
    rng = np.random.default_rng(0)
    gradients = rng.normal(0, 1, (7, 2, 2)).tolist()
    settings = {"lr_schedule_config": LrScheduleConfig(name="cosine_decay", arguments=(1e-3, 6), warmup=2)}
    whole = optimizer(dtype=dtype, **settings)
    for number, gradient in enumerate(gradients):
        if number == 4:
            whole.save(tmp_path / "state.safetensors")
        step(whole, gradient)
    resumed = optimizer(values=[[0.0, 0.0], [0.0, 0.0]], dtype=dtype, **settings)
    resumed.restore(tmp_path / "state.safetensors")
    for gradient in gradients[4:]:
        step(resumed, gradient)
    for name, leaf in whole.exact_weights().items():
        assert leaf.dtype == resumed.exact_weights()[name].dtype == mx.float32
        assert mx.array_equal(leaf, resumed.exact_weights()[name])
    assert mx.array_equal(whole.model.weight, resumed.model.weight)
    assert resumed.model.weight.dtype == dtype


def test_without_saved_state_the_schedule_goes_on_and_the_first_step_is_no_longer_than_the_rate(tmp_path):
    """Empty moments need bias correction: at the old step count 0.999 would give three times the rate."""
    settings = {
        "optimizer_beta2": 0.999,
        "lr_schedule_config": LrScheduleConfig(name="linear_schedule", arguments=(0.1, 0.0, 100)),
    }
    made = optimizer(**settings)
    made.adopt_weights(50)
    assert step(made) == pytest.approx(0.05, rel=1e-4)
    np.testing.assert_allclose(np.array(made.model.weight)[0] - [1, 2], [-0.05, 0.05], rtol=1e-3)
    step(made, times=9)
    made.save(tmp_path / "state.safetensors")
    again = optimizer(**settings)
    again.restore(tmp_path / "state.safetensors")
    assert step(again) == pytest.approx(0.04, rel=1e-4)
    assert step(made) == pytest.approx(0.04, rel=1e-4)
    assert mx.array_equal(made.model.weight, again.model.weight)


def test_adopted_weights_become_the_master_weights():
    made = optimizer(dtype=mx.bfloat16)
    made.model.weight = mx.array([[9.0, 9.0], [9.0, 9.0]]).astype(mx.bfloat16)
    made.adopt_weights(3)
    assert made.exact_weights()["weight"].tolist() == [[9, 9], [9, 9]]


def test_compiled_steps_are_the_same_steps(monkeypatch, tmp_path):
    settings = {
        "dtype": mx.bfloat16,
        "master_weights": "float32",
        "optimizer_weight_decay": 0.1,
        "grad_clip_norm": 1.0,
        "lr_schedule_config": LrScheduleConfig(name="cosine_decay", arguments=(0.1, 10), warmup=3),
    }
    eager = optimizer(**settings)
    rates = [step(eager) for _ in range(6)]
    monkeypatch.setattr(backend, "on_gpu", lambda: True)
    fused = optimizer(**settings)
    assert [step(fused) for _ in range(3)] == pytest.approx(rates[:3])
    fused.save(tmp_path / "state.safetensors")
    resumed = optimizer(**settings)
    step(resumed)
    resumed.restore(tmp_path / "state.safetensors")
    for made in (fused, resumed):
        assert [step(made) for _ in range(3)] == pytest.approx(rates[3:])
        for name, weights in eager.exact_weights().items():
            np.testing.assert_allclose(made.exact_weights()[name], weights, rtol=1e-6)
