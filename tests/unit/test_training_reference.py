"""The reference of the KL term: the starting model, whichever way it is kept, and none at all when nobody asks."""

import mlx.core as mx
import numpy as np
import pytest

from pipelines import backend
from pipelines.algorithms.grpo import Grpo
from pipelines.config import ModelConfig, TrainerConfig
from pipelines.errors import GrpoError
from pipelines.models.leaves import leaves
from pipelines.models.load import load
from pipelines.models.logprobs import completion_logprobs, split_head
from pipelines.models.lora import apply_lora
from pipelines.training import reference as module
from pipelines.training.assembly import make_updater
from pipelines.training.reference import make_reference
from pipelines.training.sequences import Sequences

TINY = "builtin:tiny"


def rows(seed=0, count=6):
    rng = np.random.default_rng(seed)
    return Sequences(
        prompts=[rng.integers(8, 100, rng.integers(2, 6)) for _ in range(count)],
        completions=[rng.integers(8, 100, rng.integers(1, 9)) for _ in range(count)],
        advantages=rng.normal(0, 1, count).astype(np.float32),
        silent=np.zeros(count, bool),
    )


def updater(*, use_lora, beta=0.1, micro_batch_tokens=1000):
    trainer = TrainerConfig(grpo_beta=beta, learning_rate=1e-3)
    config = ModelConfig(use_lora=use_lora)
    model = load(TINY).model
    if use_lora:
        apply_lora(model, config, seed=0)
    return make_updater(
        model,
        Grpo(trainer),
        make_reference(model, trainer, config, uses_kl=True),
        full_finetuning=not use_lora,
        temperature=1.0,
        micro_batch_tokens=micro_batch_tokens,
        budget_tokens=40,
    )


@pytest.mark.parametrize("micro_batch_tokens", [1000, 20])
@pytest.mark.parametrize("use_lora", [True, False])
def test_kl_is_exactly_zero_at_first_and_positive_later(use_lora, micro_batch_tokens):
    made = updater(use_lora=use_lora, micro_batch_tokens=micro_batch_tokens)
    assert made.update(rows())["kl"] == 0.0
    assert made.update(rows(1))["kl"] > 1e-6
    assert made.update(rows(2))["kl"] > 1e-6


def test_a_reference_below_adapters_tries_no_gradients(monkeypatch):
    """It would compile every layer for nothing."""
    monkeypatch.setattr(backend, "on_gpu", lambda: True)
    made = updater(use_lora=True)
    assert made.policy.stack.chains
    assert not made.recorder.reference.stack.chains


@pytest.mark.parametrize("use_lora", [True, False])
def test_the_reference_is_the_starting_model_for_ever(use_lora):
    made = updater(use_lora=use_lora)
    for seed in range(2):
        made.update(rows(seed))
    batch = rows(5).batch(np.arange(6))
    start = split_head(load(TINY).model)
    scored = (batch.tokens, batch.starts, batch.completions)
    expected = completion_logprobs(start, *scored, where=batch.mask).logprobs
    found = made.recorder.reference.logprobs(batch, 1.0)
    now = completion_logprobs(made.policy.split, *scored, where=batch.mask).logprobs
    assert mx.allclose(found, expected, atol=1e-6)
    assert not mx.allclose(now, expected, atol=1e-3)
    warm = completion_logprobs(start, *scored, 0.7, where=batch.mask).logprobs
    assert mx.allclose(made.recorder.reference.logprobs(batch, 0.7), warm, atol=1e-6)


def test_the_frozen_copy_shares_nothing_with_the_policy_and_is_not_trained():
    made = updater(use_lora=False)
    assert made.recorder.reference.model is not made.policy.model
    assert leaves(made.recorder.reference.model.trainable_parameters()) == {}
    assert leaves(made.policy.model.trainable_parameters()).keys() == leaves(made.policy.model.parameters()).keys()


@pytest.mark.parametrize(
    ("beta", "uses_kl", "use_lora"), [(0.0, True, False), (0.0, True, True), (0.1, False, False), (0.1, True, True)]
)
def test_no_second_model_is_loaded_unless_it_is_read(monkeypatch, beta, uses_kl, use_lora):
    calls = []
    monkeypatch.setattr(module, "load", lambda *arguments: calls.append(arguments))
    model = load(TINY).model
    config = ModelConfig(use_lora=use_lora)
    made = make_reference(model, TrainerConfig(grpo_beta=beta), config, uses_kl=uses_kl)
    assert calls == []
    assert (made is None) == (beta == 0 or not uses_kl)


def test_another_reference_model_is_the_one_that_is_loaded(tmp_path):
    with pytest.raises(GrpoError, match="elsewhere"):
        make_reference(
            load(TINY).model,
            TrainerConfig(grpo_beta=0.1),
            ModelConfig(ref_model_path=str(tmp_path / "elsewhere")),
            uses_kl=True,
        )
