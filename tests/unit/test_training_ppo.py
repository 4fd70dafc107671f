"""Updates with a value head: the real Updater against a numpy twin, in any split; the head's files and self-check."""

import importlib.util
import sys
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from mlx import nn

from pipelines.algorithms.ppo import Ppo
from pipelines.config import LrScheduleConfig, PpoConfig, TrainerConfig
from pipelines.errors import CheckpointError, ModelError, TrainingError
from pipelines.models.leaves import leaves
from pipelines.models.logprobs import split_head
from pipelines.training.assembly import make_updater
from pipelines.training.reference import Reference
from pipelines.training.sequences import Sequences
from pipelines.training.value_head import ValueHead, ValueLearner, make_value_head

VOCABULARY, HIDDEN, ROWS, WIDTH, ITERATIONS = 6, 4, 7, 5, 2
BETA, CLIP, LAMBDA, COEFFICIENT = 0.3, 0.05, 0.9, 0.7


def load_twin():
    path = Path(__file__).resolve().parents[1] / "reference_grpo.py"
    spec = importlib.util.spec_from_file_location("reference_grpo_of_ppo", path)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


twin = load_twin()


class TwoParts(nn.Module):
    """hidden = embedding[token], logits = hidden head^T: the smallest model with last hidden states."""

    def __init__(self, embedding, head):
        super().__init__()
        self.model = nn.Embedding(VOCABULARY, HIDDEN)
        self.lm_head = nn.Linear(HIDDEN, VOCABULARY, bias=False)
        self.model.weight, self.lm_head.weight = (mx.array(part.astype(np.float32)) for part in (embedding, head))

    def __call__(self, tokens):
        return self.lm_head(self.model(tokens))


class Bigram(nn.Module):
    """A model without last hidden states."""

    def __init__(self):
        super().__init__()
        self.table = mx.zeros((VOCABULARY, VOCABULARY))

    def __call__(self, tokens):
        return self.table[tokens]


def parts(seed=0):
    return tuple(np.random.default_rng(seed).normal(0, 1, (2, VOCABULARY, HIDDEN)))


def rollouts(seed):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, WIDTH + 1, ROWS)
    return {
        "prompts": [rng.integers(0, VOCABULARY, rng.integers(1, 4)) for _ in range(ROWS)],
        "completions": rng.integers(0, VOCABULARY, (ROWS, WIDTH)),
        "mask": (np.arange(WIDTH) < lengths[:, None]) & ((rng.random((ROWS, WIDTH)) < 0.8) | (np.arange(WIDTH) == 0)),
        "lengths": lengths,
        "rewards": rng.normal(0.5, 1, ROWS).astype(np.float32),
    }


def trainer(**changes):
    settings = {
        "algorithm": "ppo",
        "num_iterations": ITERATIONS,
        "grpo_beta": BETA,
        "optimizer_beta2": 0.95,
        "optimizer_weight_decay": 0.01,
        "grad_clip_norm": 0.3,
        "lr_schedule_config": LrScheduleConfig(name="constant", arguments=(0.1,), warmup=3, warmup_init=0.02),
        "ppo": PpoConfig(gae_lambda=LAMBDA, value_coef=COEFFICIENT, value_clip=CLIP, value_learning_rate=0.04),
    }
    return TrainerConfig(**(settings | changes))


def updater(config, model=None, micro_batch_tokens=10_000):
    return make_updater(
        TwoParts(*parts()) if model is None else model,
        Ppo(config),
        Reference(TwoParts(*parts(1)), shares_base=False) if config.grpo_beta else None,
        full_finetuning=True,
        temperature=1.0,
        micro_batch_tokens=micro_batch_tokens,
        budget_tokens=WIDTH,
    )


def sequences(data):
    rows = range(ROWS)
    return Sequences(
        prompts=data["prompts"],
        completions=[data["completions"][row, : data["lengths"][row]] for row in rows],
        advantages=data["rewards"],
        silent=np.zeros(ROWS, bool),
        inactive=[~data["mask"][row, : data["lengths"][row]] for row in rows],
    )


def shifted(values, mask):
    """V at the next active token of each row, 0 after the last."""
    out = np.zeros_like(values)
    for row, active in enumerate(mask):
        where = np.flatnonzero(active)
        out[row, where[:-1]] = values[row, where[1:]]
    return out


class Twin:
    """PPO in numpy on the two-part model: float64, one flat vector of parameters each for model and head."""

    def __init__(self):
        self.embedding, self.lm_head = (np.array(part, float) for part in parts())
        self.value = np.zeros(HIDDEN + 1)
        settings = twin.Settings(1, learning_rate=0.1, warmup_steps=3, warmup_init=0.02)
        self.adam = twin.AdamW(2 * VOCABULARY * HIDDEN, settings)
        self.value_adam = twin.AdamW(HIDDEN + 1, twin.Settings(1, learning_rate=0.04))

    def score(self, embedding, lm_head, data):
        """Hidden states, log-probabilities of all tokens, and those of the completion."""
        hidden = embedding[twin.previous_tokens(data["prompts"], data["completions"])]
        full = twin.log_softmax(hidden @ lm_head.T)
        return hidden, full, np.take_along_axis(full, data["completions"][..., None], -1)[..., 0]

    def credit(self, old, ref, values, data):
        """Whitened advantages and returns by the recursion, from the last active token to the first."""
        mask, d = data["mask"], ref - old
        rewards = -BETA * (np.exp(d) - d - 1) * mask
        for row in range(ROWS):
            rewards[row, np.flatnonzero(mask[row])[-1]] += data["rewards"][row]
        deltas = rewards + shifted(values, mask) - values
        advantages = np.zeros_like(deltas)
        for row in range(ROWS):
            following = 0.0
            for t in reversed(np.flatnonzero(mask[row])):
                following = advantages[row, t] = deltas[row, t] + LAMBDA * following
        active = advantages[mask]
        return (advantages - active.mean()) / (active.std(ddof=1) + 1e-8) * mask, (advantages + values) * mask

    def update(self, data):
        hidden, _, old = self.score(self.embedding, self.lm_head, data)
        ref = self.score(*(np.array(part, float) for part in parts(1)), data)[2]
        old_values = hidden @ self.value[:-1] + self.value[-1]
        advantages, returns = self.credit(old, ref, old_values, data)
        return [self.step(data, old, old_values, advantages, returns) for _ in range(ITERATIONS)]

    def step(self, data, old, old_values, advantages, returns):
        mask, items = data["mask"], data["mask"].sum()
        hidden, full, new = self.score(self.embedding, self.lm_head, data)
        ratio = np.exp(new - old)
        free, bounded = ratio * advantages, np.clip(ratio, 0.8, 1.28) * advantages
        slopes = np.where(free <= bounded, -free, 0.0) * mask / items

        values = hidden @ self.value[:-1] + self.value[-1]
        held = old_values + np.clip(values - old_values, -CLIP, CLIP)
        worse = (held - returns) ** 2 > (values - returns) ** 2
        errors = np.where(worse, held, values) - returns
        value_loss = (errors**2 * mask).sum() / (2 * items)
        value_slopes = COEFFICIENT * np.where(worse, 0.0, errors) * mask / items

        logit_slopes = -slopes[..., None] * np.exp(full)
        np.put_along_axis(
            logit_slopes,
            data["completions"][..., None],
            slopes[..., None] + np.take_along_axis(logit_slopes, data["completions"][..., None], -1),
            -1,
        )
        lm_head = np.einsum("ntv,nth->vh", logit_slopes, hidden)
        hidden_slopes = logit_slopes @ self.lm_head + value_slopes[..., None] * self.value[:-1]
        embedding = np.zeros_like(self.embedding)
        np.add.at(embedding, twin.previous_tokens(data["prompts"], data["completions"]), hidden_slopes)
        head = np.append(np.einsum("nt,nth->h", value_slopes, hidden), value_slopes.sum())

        flat, norm = twin.clip_by_global_norm(np.concatenate([embedding.ravel(), lm_head.ravel()]), 0.3)
        weights = self.adam.apply(np.concatenate([self.embedding.ravel(), self.lm_head.ravel()]), flat)
        self.embedding, self.lm_head = weights.reshape(2, VOCABULARY, HIDDEN)
        head, head_norm = twin.clip_by_global_norm(head, 0.3)
        self.value = self.value_adam.apply(self.value, head)
        loss = -(np.minimum(free, bounded) * mask).sum() / items + COEFFICIENT * value_loss
        return {
            "loss": loss,
            "value_loss": value_loss,
            "grad_norm": norm,
            "head_norm": head_norm,
            "critic/vf_clipfrac": (worse & mask).sum() / items,
        }


def run(micro_batch_tokens, updates=3):
    real = updater(trainer(), micro_batch_tokens=micro_batch_tokens)
    reports = [real.update(sequences(rollouts(seed))) for seed in range(updates)]
    model = real.policy.model
    head = np.append(np.array(real.policy.value_head.weight)[0], np.array(real.policy.value_head.bias))
    return np.array(model.model.weight), np.array(model.lm_head.weight), head, reports


@pytest.mark.parametrize("micro_batch_tokens", [1, 19, 10_000])
def test_three_updates_equal_the_twin_in_any_split(micro_batch_tokens):
    reference = Twin()
    expected = [reference.update(rollouts(seed)) for seed in range(3)]
    embedding, lm_head, head, reports = run(micro_batch_tokens)
    np.testing.assert_allclose(embedding, reference.embedding, rtol=2e-4, atol=2e-5)
    np.testing.assert_allclose(lm_head, reference.lm_head, rtol=2e-4, atol=2e-5)
    np.testing.assert_allclose(head, reference.value, rtol=2e-4, atol=2e-5)
    for report, steps in zip(reports, expected, strict=True):
        for name in ("loss", "value_loss", "grad_norm", "critic/vf_clipfrac"):
            wanted = np.mean([step[name] for step in steps])
            assert report[name] == pytest.approx(wanted, rel=1e-4, abs=1e-6), name
    steps = [step for update in expected for step in update]
    assert max(step["critic/vf_clipfrac"] for step in steps) > 0.1  # the value clip had work to do
    for norm in ("grad_norm", "head_norm"):  # and so had both gradient clips
        assert max(step[norm] for step in steps) > 0.3
    assert reports[0]["critic/values/mean"] == 0
    assert reports[0]["kl"] > 0.01


def test_the_head_begins_at_zero_and_is_as_wide_as_the_hidden_states():
    model = TwoParts(*parts())
    head = make_value_head(model, split_head(model))
    assert {name: leaf.shape for name, leaf in leaves(head.parameters()).items()} == {
        "weight": (1, HIDDEN),
        "bias": (1,),
    }
    assert not head(mx.ones((3, HIDDEN))).any().item()
    assert head(mx.ones((3, HIDDEN))).shape == (3, 1)


def test_a_model_that_hides_its_last_states_is_refused():
    with pytest.raises(ModelError, match="Bigram does not show its last hidden states") as told:
        updater(trainer(), Bigram())
    assert "trainer.algorithm=grpo" in told.value.hint


def learner(rate=0.04):
    return ValueLearner(ValueHead(HIDDEN), trainer(ppo=PpoConfig(value_learning_rate=rate)))


def gradient(seed):
    rng = np.random.default_rng(seed)
    weight = mx.array(rng.normal(0, 1, (1, HIDDEN)).astype(np.float32))
    return {"value_head.weight": weight, "value_head.bias": mx.ones(1)}


def stepped(one, seeds):
    for seed in seeds:
        one.step(gradient(seed), 1.0)
    return one


def test_a_head_that_was_saved_goes_on_to_the_bit(tmp_path):
    whole, half, other = stepped(learner(), range(4)), stepped(learner(), range(2)), learner()
    half.save(tmp_path, optimizer_state=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "value_head.safetensors",
        "value_head_optimizer.safetensors",
    ]
    other.restore(tmp_path)
    stepped(other, range(2, 4))
    for name, leaf in whole.weights().items():
        assert mx.array_equal(leaf, other.weights()[name]), name


def test_without_its_optimizer_the_weights_come_back(tmp_path):
    half, other = stepped(learner(), range(2)), learner()
    half.save(tmp_path, optimizer_state=False)
    assert [path.name for path in tmp_path.iterdir()] == ["value_head.safetensors"]
    other.restore(tmp_path)
    for name, leaf in half.weights().items():
        assert leaf.any().item()
        assert mx.array_equal(leaf, other.weights()[name]), name


def test_a_checkpoint_without_a_head_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="holds no value head"):
        learner().restore(tmp_path)


def test_the_heads_rate_is_its_own():
    """AdamW's first step is its rate in each entry, wherever the model's schedule stands."""
    one = ValueLearner(ValueHead(HIDDEN), trainer(optimizer_weight_decay=0.0, ppo=PpoConfig(value_learning_rate=0.5)))
    one.step(gradient(0), 1.0)
    np.testing.assert_allclose(np.abs(np.array(one.head.weight)), 0.5, rtol=1e-5)


def test_the_self_check_sees_the_head():
    real = updater(trainer())
    heads = {"value_head.weight", "value_head.bias"}
    assert heads <= real.check.pending
    real.update(sequences(rollouts(0)))
    assert not real.check.pending


def test_the_self_check_names_a_head_that_does_not_move(monkeypatch):
    real = updater(trainer(lr_schedule_config=None))
    monkeypatch.setattr(real.value_learner, "step", lambda *_: None)
    with pytest.raises(TrainingError, match=r"value_head\.bias .*received a gradient and did not move"):
        real.update(sequences(rollouts(0)))


def test_a_head_that_is_given_no_weight_is_not_expected_to_learn():
    real = updater(trainer(ppo=PpoConfig(value_coef=0)))
    real.update(sequences(rollouts(0)))
    assert not real.check.pending
    assert not any(leaf.any().item() for leaf in real.value_learner.weights().values())


def test_a_gradient_of_the_head_that_is_not_finite_moves_nothing(monkeypatch):
    real = updater(trainer())
    credit = real.algorithm.token_advantages
    monkeypatch.setattr(
        real.algorithm, "token_advantages", lambda rows: credit(rows)._replace(returns=rows.mask * mx.inf)
    )
    weights = {name: np.array(leaf) for name, leaf in real._weights().items()}
    with pytest.raises(TrainingError, match="is not finite; the weights were left"):
        real.update(sequences(rollouts(0)))
    for name, leaf in real._weights().items():
        np.testing.assert_array_equal(np.array(leaf), weights[name])


def test_the_leaf_of_the_head_is_named_by_where_it_stands():
    one = updater(trainer())
    finite = {"model.weight": mx.ones((VOCABULARY, HIDDEN)), "value_head.weight": mx.ones((1, HIDDEN))}
    weights = {name: np.array(leaf) for name, leaf in one._weights().items()}
    with pytest.raises(TrainingError, match=r"gradient of value_head\.bias is not finite"):
        one._advance(finite | {"value_head.bias": mx.array([mx.nan])})
    for name, leaf in one._weights().items():
        np.testing.assert_array_equal(np.array(leaf), weights[name])
