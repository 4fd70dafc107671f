"""One update is one optimizer step: the real Updater against the numpy twin, and against itself in other splits."""

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

import mlx.core as mx
import numpy as np
import pytest
from mlx import nn

from pipelines import backend
from pipelines.algorithms.advantages import kept_rows
from pipelines.algorithms.grpo import Grpo
from pipelines.algorithms.sft import Sft
from pipelines.config import LossConfig, LrScheduleConfig, TrainerConfig
from pipelines.errors import TrainingError
from pipelines.training.assembly import make_updater
from pipelines.training.micro_batches import automatic_tokens, micro_batches
from pipelines.training.reference import Reference
from pipelines.training.sequences import Sequences
from pipelines.training.update import finite_norm

VOCABULARY, ROWS, WIDTH, GROUP, UPDATES, BUDGET = 6, 12, 5, 4, 5, 9


def load_twin():
    path = Path(__file__).resolve().parents[1] / "reference_grpo.py"
    spec = importlib.util.spec_from_file_location("reference_grpo_of_updates", path)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


twin = load_twin()


class Bigram(nn.Module):
    """logits = table[token]"""

    def __init__(self, table):
        super().__init__()
        self.table = mx.array(np.asarray(table, np.float32))

    def __call__(self, tokens):
        return self.table[tokens]


def tables(seed=0):
    return np.random.default_rng(seed).normal(0, 1, (2, VOCABULARY, VOCABULARY))


def rollouts(seed):
    """Prompts and completions of unequal lengths; the second group's rewards are all equal."""
    rng = np.random.default_rng(seed)
    return {
        "prompts": [rng.integers(0, VOCABULARY, rng.integers(1, 4)) for _ in range(ROWS)],
        "completions": rng.integers(0, VOCABULARY, (ROWS, WIDTH)),
        "lengths": rng.integers(1, WIDTH + 1, ROWS),
        "rewards": np.array([1.0, 0.0, 0.25, 1.0, 2.7, 2.7, 2.7, 2.7, *rng.integers(0, 2, 3), 3.0]),
    }


def trainer(loss="dapo", **changes):
    settings = {
        "loss": LossConfig(type=loss),
        "num_rollout_samples": GROUP,
        "grpo_beta": 0.1,
        "optimizer_beta2": 0.95,
        "optimizer_weight_decay": 0.01,
        "grad_clip_norm": 0.05,
        "lr_schedule_config": LrScheduleConfig(name="constant", arguments=(0.02,), warmup=3, warmup_init=0.002),
    }
    return TrainerConfig(**(settings | changes))


def updater(config, table, ref_table=None, micro_batch_tokens=10_000, algorithm=Grpo):
    model = Bigram(table)
    reference = None if ref_table is None else Reference(Bigram(ref_table), shares_base=False)
    return make_updater(
        model,
        algorithm(config),
        reference,
        full_finetuning=True,
        temperature=1.0,
        micro_batch_tokens=micro_batch_tokens,
        budget_tokens=BUDGET,
    )


def sequences(config, data, silent=None):
    found = Grpo(config).advantages(mx.array(data["rewards"].astype(np.float32))[:, None], mx.ones(1), GROUP)
    kept = kept_rows(found, drop=config.advantage.drop_zero_variance_groups)
    silent = np.zeros(ROWS, bool) if silent is None else silent
    return Sequences(
        prompts=[data["prompts"][row] for row in kept],
        completions=[data["completions"][row, : data["lengths"][row]] for row in kept],
        advantages=np.array(found.values)[kept],
        silent=silent[kept],
    )


def run(config, micro_batch_tokens=10_000, updates=UPDATES, silent=None):
    """The table after some updates, and the metrics of each."""
    real = updater(config, *tables(), micro_batch_tokens=micro_batch_tokens)
    reports = [real.update(sequences(config, rollouts(seed), silent)) for seed in range(updates)]
    return np.array(real.policy.model.table), reports


@pytest.mark.parametrize("micro_batch_tokens", [1, 19, 10_000])
@pytest.mark.parametrize("loss", ["dapo", "grpo", "dr_grpo"])
def test_five_updates_equal_the_twin(loss, micro_batch_tokens):
    config = trainer(loss)
    assert config.grpo_beta > 0
    settings = twin.Settings(
        group_size=GROUP,
        loss=loss,
        beta=0.1,
        max_completion_length=BUDGET,
        learning_rate=0.02,
        warmup_steps=3,
        warmup_init=0.002,
        clip_norm=0.05,
    )
    reference = twin.Twin(*tables(), settings)
    expected = [reference.update(**rollouts(seed)) for seed in range(UPDATES)]
    table, reports = run(config, micro_batch_tokens)

    np.testing.assert_allclose(table, reference.table, rtol=1e-4, atol=1e-6)
    assert np.abs(table - tables()[0]).max() > 0.02  # it went somewhere
    assert any(report["grad_norm"] > 0.05 for report in reports)  # the clip had work to do
    for report, wanted in zip(reports, expected, strict=True):
        for name in ("loss", "kl", "grad_norm", "learning_rate"):
            assert report[name] == pytest.approx(wanted[name], rel=1e-4, abs=1e-6), name


def test_an_update_is_one_optimizer_step_in_any_split():
    config = trainer()
    for micro_batch_tokens in (1, 10_000):
        real = updater(config, *tables(), micro_batch_tokens=micro_batch_tokens)
        real.update(sequences(config, rollouts(0)))
        assert int(real.optimizer.adam.step) == 1


@pytest.mark.parametrize("loss", ["dapo", "grpo", "dr_grpo", "cispo", "sapo", "gspo"])
def test_the_split_changes_nothing_with_silent_rows_either(loss):
    silent = np.arange(ROWS) % 3 == 0
    whole, split = (run(trainer(loss), tokens, silent=silent)[0] for tokens in (10_000, 11))
    np.testing.assert_allclose(split, whole, rtol=1e-5, atol=1e-6)


def test_silent_rows_count_as_rows_and_move_nothing():
    """dr_grpo divides by rows: silencing rows must leave the share of the others as it was."""
    config = trainer("dr_grpo", grpo_beta=0.0, grad_clip_norm=0.0)
    data = rollouts(0)
    silent = np.arange(ROWS) == 1
    without, real = updater(config, tables()[0]), updater(config, tables()[0])
    rows = sequences(config, data, silent)
    real.update(rows)
    blank = sequences(config, data)
    zero = np.where(rows.silent, 0, blank.advantages).astype(np.float32)
    without.update(Sequences(blank.prompts, blank.completions, zero, blank.silent))
    np.testing.assert_allclose(np.array(real.policy.model.table), np.array(without.policy.model.table), rtol=1e-6)
    assert rows.totals(BUDGET).rows == 8
    assert rows.totals(BUDGET).items == sum(map(len, rows.completions)) - len(rows.completions[1])


def test_gradients_of_a_16_bit_model_are_summed_in_float32():
    """Hundreds of micro-batches whose gradients fall below half a unit in the last place of their sum."""
    table = np.zeros((VOCABULARY, VOCABULARY))
    rows = 600
    data = Sequences([np.array([0])] * rows, [np.array([1])] * rows, np.ones(rows, np.float32), np.zeros(rows, bool))
    config = trainer(grpo_beta=0.0, grad_clip_norm=0.0, master_weights="float32")
    real = updater(config, table, micro_batch_tokens=2)
    real.policy.model.table = real.policy.model.table.astype(mx.bfloat16)
    assert real.update(data)["grad_norm"] == pytest.approx(30**0.5 / 6, rel=5e-3)  # of onehot - 1/6 in each entry


def test_sft_is_the_mean_cross_entropy_of_the_tokens():
    config = trainer(algorithm="sft")
    data = rollouts(0)
    previous = twin.previous_tokens(data["prompts"], data["completions"])
    logprobs = twin.bigram_logprobs(tables()[0], previous, data["completions"])
    mask = np.arange(WIDTH) < data["lengths"][:, None]
    completions = [data["completions"][row, : data["lengths"][row]] for row in range(ROWS)]
    rows = Sequences(data["prompts"], completions, np.zeros(ROWS, np.float32), np.zeros(ROWS, bool))
    for tokens in (1, 10_000):
        real = updater(config, tables()[0], micro_batch_tokens=tokens, algorithm=Sft)
        assert real.update(rows)["loss"] == pytest.approx(-logprobs[mask].mean(), rel=1e-5)


def test_a_gradient_that_is_not_finite_names_the_leaf_and_moves_nothing():
    config = trainer(grpo_beta=0.0)
    real = updater(config, tables()[0])
    rows = sequences(config, rollouts(0))
    rows.advantages[2] = np.inf
    before, state = np.array(real.policy.model.table), dict(real.optimizer.adam.state)
    with pytest.raises(TrainingError, match="gradient of table is not finite") as told:
        real.update(rows)
    assert "weights were left" in told.value.message
    np.testing.assert_array_equal(np.array(real.policy.model.table), before)
    assert int(real.optimizer.adam.step) == int(state["step"]) == 0


def test_the_leaf_that_is_not_finite_among_several():
    assert finite_norm({"a": mx.array([3.0]), "b": {"c": mx.array([4.0])}}) == 5.0
    with pytest.raises(TrainingError, match=r"gradient of b\.c is"):
        finite_norm({"a": mx.array([3.0]), "b": {"c": mx.array([1.0, mx.nan])}})
    with pytest.raises(TrainingError, match="sum over all leaves"):
        finite_norm({"a": mx.array([1.5e19]), "b": mx.array([1.5e19])})


def test_an_update_without_rows_is_a_mistake():
    nothing = Sequences([], [], np.zeros(0, np.float32), np.zeros(0, bool))
    with pytest.raises(ValueError, match="at least one token to learn from"):
        updater(trainer(), tables()[0]).update(nothing)


def test_dropout_works_in_the_gradient_only():
    config = trainer(grpo_beta=0.0)
    real = updater(config, tables()[0])
    seen = []
    inner = real.algorithm.loss

    def spy(*arguments):
        seen.append(real.policy.model.training)
        return inner(*arguments)

    real.algorithm.loss = spy
    for seed in (0, 1):  # of a model that comes out of the first one evaluating
        real.update(sequences(config, rollouts(seed)))
        assert not real.policy.model.training
    assert seen == [True, True]


def test_micro_batches_hold_every_row_once_within_the_limit():
    data = rollouts(3)
    rows = Sequences(data["prompts"], list(data["completions"]), np.zeros(ROWS, np.float32), np.zeros(ROWS, bool))
    lengths = rows.lengths()
    for most in (1, 8, 20, 10_000):
        parts = [part.rows for part in micro_batches(rows, most)]
        assert sorted(np.concatenate(parts)) == list(range(ROWS))
        for part in parts:
            assert len(part) == 1 or len(part) * lengths[part].max() <= most
    assert len(micro_batches(rows, 10_000)) == 1


@pytest.mark.usefixtures("as_on_a_cpu")
def test_a_batch_is_padded_behind_and_masked_there():
    rows = Sequences(
        prompts=[np.array([5, 6, 7]), np.array([8])],
        completions=[np.array([1]), np.array([2, 3])],
        advantages=np.array([0.5, -0.5], np.float32),
        silent=np.array([False, False]),
        sampler_logprobs=[np.array([-1.0], np.float32), np.array([-2.0, -3.0], np.float32)],
    )
    batch = rows.batch(np.array([1, 0]))
    assert batch.tokens.tolist() == [[8, 2, 0], [5, 6, 7]]  # the last token of each is only predicted
    assert batch.starts.tolist() == [1, 3]
    assert batch.completions.tolist() == [[2, 3], [1, 0]]
    assert batch.mask.tolist() == [[True, True], [True, False]]
    assert batch.advantages.tolist() == [-0.5, 0.5]
    assert batch.sampler_logprobs.tolist() == [[-2.0, -3.0], [-1.0, 0.0]]


def stack_of(layers, *, chains=False):
    """What `automatic_tokens` asks of a stack; the states of its layers are float32 and 8 wide."""
    return SimpleNamespace(layers=layers, chains=chains, begin=lambda tokens: mx.zeros((*tokens.shape, 8)))


@pytest.mark.usefixtures("as_on_a_cpu")
def test_automatic_micro_batches_shrink_with_the_model(monkeypatch):
    narrow, wide = ([nn.Linear(8, width) for _ in range(32)] for width in (64, 65_536))
    kept_bytes = 4 * 4 * 32 * 65_536
    monkeypatch.setattr(backend, "memory_bytes", lambda: 2**34)
    assert automatic_tokens(stack_of(narrow)) == 2048
    assert automatic_tokens(stack_of(wide)) == 640 * 2**20 // kept_bytes < 2 * 2**34 // 8 // kept_bytes
    deep = stack_of([nn.Linear(256, 65_536) for _ in range(8)])
    assert automatic_tokens(deep) == 2 * 4 * 8 * 257 * 65_536 // (4 * 4 * 8 * 65_536), "the gradient is large itself"
    monkeypatch.setattr(backend, "on_gpu", lambda: True)
    assert automatic_tokens(stack_of(wide)) == 2**34 // 8 // kept_bytes
    assert automatic_tokens(stack_of(narrow)) == automatic_tokens(stack_of([])) == 40_960


def test_layers_that_keep_only_what_they_are_given_leave_room_for_more(monkeypatch):
    """Room for all of two layers, and for the 8 numbers that each of 32 is given."""
    wide = [nn.Linear(8, 65_536) for _ in range(32)]
    monkeypatch.setattr(backend, "memory_bytes", lambda: 2**34)
    monkeypatch.setattr(backend, "on_gpu", lambda: True)
    assert automatic_tokens(stack_of(wide, chains=True)) == 2**34 // 8 // (4 * 2 * 4 * 65_536 + 32 * 4 * 8)
