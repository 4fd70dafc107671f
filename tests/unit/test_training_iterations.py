"""Several optimizer steps from one batch: against a loop written down anew, in any split, and where they fail."""

import mlx.core as mx
import numpy as np
import pytest
from mlx import nn, optimizers
from mlx.utils import tree_map
from mlx_lm.models.llama import Model, ModelArgs

from pipelines.algorithms.entropy import entropy_threshold
from pipelines.algorithms.grpo import Grpo
from pipelines.algorithms.losses import LossOutput, policy_loss
from pipelines.config import LossConfig, LrScheduleConfig, TrainerConfig
from pipelines.errors import TrainingError
from pipelines.models import tiny
from pipelines.models.leaves import leaves
from pipelines.training.assembly import make_updater
from pipelines.training.reference import Reference
from pipelines.training.self_check import SelfCheck
from pipelines.training.sequences import Sequences

VOCABULARY, ROWS, ITERATIONS, UPDATES, BUDGET, BETA, RATE = 6, 8, 3, 3, 9, 0.1, 0.05


class Bigram(nn.Module):
    """logits = table[token]"""

    def __init__(self, seed):
        super().__init__()
        self.table = mx.array(np.random.default_rng(seed).normal(0, 1, (VOCABULARY, VOCABULARY)).astype(np.float32))

    def __call__(self, tokens):
        return self.table[tokens]


def rollouts(seed):
    """Rows of unequal lengths; one is silent."""
    rng = np.random.default_rng(seed)
    lengths = [5, 3, 6, 2, 4, 6, 1, 5]
    return Sequences(
        prompts=[rng.integers(0, VOCABULARY, rng.integers(1, 4)) for _ in range(ROWS)],
        completions=[rng.integers(0, VOCABULARY, length) for length in lengths],
        advantages=rng.normal(0, 1, ROWS).astype(np.float32),
        silent=np.arange(ROWS) == 3,
        thinking=np.array([2, 3, 0, 1, 2, 4, 1, 3]),
    )


def trainer(**changes):
    settings = {"num_iterations": ITERATIONS, "grpo_beta": BETA, "learning_rate": RATE, "grad_clip_norm": 0.1}
    return TrainerConfig(**(settings | changes))


def make(config, model=None, *, reference=None, micro_batch_tokens=10_000, algorithm=Grpo):
    return make_updater(
        Bigram(0) if model is None else model,
        algorithm(config),
        reference,
        full_finetuning=True,
        temperature=1.0,
        micro_batch_tokens=micro_batch_tokens,
        budget_tokens=BUDGET,
    )


class Counted(Reference):
    """A reference that counts the rows it was asked about."""

    rows = 0

    def logprobs(self, batch, *arguments):
        self.rows += len(batch.tokens)
        return super().logprobs(batch, *arguments)


class Spy(Grpo):
    """Keeps what each call of the loss was given."""

    def __init__(self, config):
        super().__init__(config)
        self.seen = []

    def loss(self, logprobs, entropies, batch, totals):
        self.seen.append((np.array(mx.stop_gradient(logprobs)), np.array(batch.old_logprobs), np.array(batch.mask)))
        return super().loss(logprobs, entropies, batch, totals)


# The loop, written down: no micro-batches, no packing, mlx's own optimizer.


def padded(rows, width):
    return np.array([np.pad(row, (0, width - len(row))) for row in rows])


def scores(model, rows):
    """Log-probabilities and entropies `[N, C]`, numbers without meaning behind each row."""
    width = max(map(len, rows.completions))
    before = [np.concatenate([p[-1:], c[:-1]]) for p, c in zip(rows.prompts, rows.completions, strict=True)]
    logprobs = nn.log_softmax(model(mx.array(padded(before, width))), axis=-1)
    chosen = mx.take_along_axis(logprobs, mx.array(padded(rows.completions, width))[..., None], axis=-1)[..., 0]
    return chosen, -(mx.exp(logprobs) * logprobs).sum(axis=-1)


def by_hand(config, updates):
    """The table after the updates."""
    model, reference = Bigram(0), Bigram(1)
    adam = optimizers.AdamW(RATE, betas=[0.9, 0.99], weight_decay=0.0, bias_correction=True)
    for seed in range(updates):
        rows = rollouts(seed)
        lengths = np.array([len(completion) for completion in rows.completions])
        mask = (np.arange(lengths.max()) < lengths[:, None]) & ~rows.silent[:, None]
        mask = mx.array(mask)
        old, entropies = scores(model, rows)
        ref = scores(reference, rows)[0]
        quantile = config.loss.top_entropy_quantile
        fixed = {
            "beta": BETA,
            "num_items": int(mask.sum()),
            "num_rows": ROWS,
            "max_completion_length": BUDGET,
            "entropy_threshold": entropy_threshold(entropies, mask, quantile) if quantile < 1 else None,
        }
        given = (old, ref, mx.array(rows.advantages), mask, config.loss)

        def loss(_, rows=rows, given=given, fixed=fixed):
            new, entropies = scores(model, rows)
            return policy_loss(new, *given, entropies=entropies, **fixed).loss

        for _ in range(ITERATIONS):
            gradient = nn.value_and_grad(model, loss)(None)[1]["table"]
            norm = float(mx.sqrt(gradient.square().sum()))
            adam.update(model, {"table": gradient * min(1.0, config.grad_clip_norm / (norm + 1e-6))})
            mx.eval(model.parameters())
    return np.array(model.table)


@pytest.mark.parametrize("micro_batch_tokens", [1, 17, 10_000])
@pytest.mark.parametrize("type_", ["dapo", "grpo", "bnpo", "dr_grpo", "gspo", "cispo", "sapo"])
def test_three_steps_from_each_batch_equal_the_loop(type_, micro_batch_tokens):
    config = trainer(loss=LossConfig(type=type_))
    made = make(config, reference=Reference(Bigram(1), shares_base=False), micro_batch_tokens=micro_batch_tokens)
    for seed in range(UPDATES):
        made.update(rollouts(seed))
    np.testing.assert_allclose(np.array(made.policy.model.table), by_hand(config, UPDATES), rtol=1e-4, atol=2e-6)
    assert int(made.optimizer.adam.step) == UPDATES * ITERATIONS


@pytest.mark.parametrize("micro_batch_tokens", [1, 17, 10_000])
def test_the_entropy_filter_has_one_threshold_for_the_whole_update(micro_batch_tokens):
    config = trainer(loss=LossConfig(top_entropy_quantile=0.4))
    made = make(config, reference=Reference(Bigram(1), shares_base=False), micro_batch_tokens=micro_batch_tokens)
    for seed in range(UPDATES):
        made.update(rollouts(seed))
    table = np.array(made.policy.model.table)
    np.testing.assert_allclose(table, by_hand(config, UPDATES), rtol=1e-4, atol=2e-6)
    assert np.abs(table - by_hand(trainer(), UPDATES)).max() > 0.01


def test_old_log_probabilities_are_those_before_the_first_step():
    made = make(trainer(learning_rate=0.3), algorithm=Spy, reference=Reference(Bigram(1), shares_base=False))
    start = np.array(scores(made.policy.model, rollouts(0))[0])
    report = made.update(rollouts(0))
    first, *later = made.algorithm.seen
    assert len(later) == ITERATIONS - 1
    new, old, mask = first
    assert np.array_equal(new[mask], old[mask])  # the ratio is exactly 1
    order = np.argsort(-rollouts(0).lengths(), kind="stable")
    order = order[order != 3]
    np.testing.assert_allclose(old[mask], start[order][mask], atol=1e-6)
    for new, again, _ in later:
        assert np.array_equal(again, old)
        assert np.abs(np.exp(new - old)[mask] - 1).max() > 0.05
    assert report["clip_ratio/region_mean"] > 0


def test_on_policy_nothing_is_recorded():
    made = make(trainer(num_iterations=1, grpo_beta=0.0))
    rows = rollouts(0)
    assert made.recorder.record(rows) is rows
    assert made.update(rows)["clip_ratio/region_mean"] == 0


@pytest.mark.parametrize("micro_batch_tokens", [1, 10_000])
def test_the_reference_is_asked_once(micro_batch_tokens):
    reference = Counted(Bigram(1), shares_base=False)
    make(trainer(), reference=reference, micro_batch_tokens=micro_batch_tokens).update(rollouts(0))
    assert reference.rows == ROWS - 1  # the silent row has nothing to be asked about


def test_the_gap_to_the_sampler_is_that_of_the_first_step():
    made = make(trainer(grpo_beta=0.0, learning_rate=0.3))
    rows = rollouts(0)
    noted = np.array(scores(made.policy.model, rows)[0])
    noted = [noted[row, : len(completion)] for row, completion in enumerate(rows.completions)]
    report = made.update(Sequences(**(vars(rows) | {"sampler_logprobs": noted})))
    assert report["mismatch_kl"] < 1e-6
    assert abs(report["ratio/mean"] - 1) > 1e-3  # a mean over all three


def test_each_step_has_its_own_rate():
    schedule = LrScheduleConfig(name="linear_schedule", arguments=(0.06, 0.0, 6))
    made = make(trainer(grpo_beta=0.0, lr_schedule_config=schedule))
    rates = [made.update(rollouts(seed))["learning_rate"] for seed in range(2)]
    assert rates == pytest.approx([np.mean([0.06, 0.05, 0.04]), np.mean([0.03, 0.02, 0.01])], rel=1e-5)


# The entropy bonus.


def make_decoder(seed=0):
    """Two random layers; logits of a natural spread."""
    arguments = tiny.config() | {"num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 48}
    arguments |= {"num_attention_heads": 1, "num_key_value_heads": 1, "vocab_size": VOCABULARY}
    model = Model(ModelArgs.from_dict(arguments))
    mx.random.seed(seed)
    model.update(tree_map(lambda w: w if w.ndim == 1 else 0.3 * mx.random.normal(w.shape), model.parameters()))
    model.eval()
    return model


def mean_entropy(model, rows):
    """Over the active tokens, one row at a time, in float64 from the logits on."""
    total, tokens = 0.0, 0
    for row, (prompt, completion) in enumerate(zip(rows.prompts, rows.completions, strict=True)):
        if rows.silent[row]:
            continue
        logits = np.array(model(mx.array(np.concatenate([prompt, completion]))[None])[0], np.float64)
        logits = logits[len(prompt) - 1 : -1]
        logprobs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
        total -= (np.exp(logprobs) * logprobs).sum()
        tokens += len(completion)
    return total / tokens


@pytest.mark.parametrize("micro_batch_tokens", [8, 10_000])
@pytest.mark.parametrize(
    "name", ["model.layers.0.mlp.up_proj.weight", "model.embed_tokens.weight", "model.norm.weight"]
)
def test_the_entropy_bonus_reaches_the_weights(name, micro_batch_tokens):
    """With advantages of 0 the loss is -coef H alone; its slope along a random direction, by finite differences."""
    coefficient, step = 0.5, 4e-3
    config = trainer(num_iterations=1, grpo_beta=0.0, grad_clip_norm=0.0, loss=LossConfig(entropy_coef=coefficient))
    rows = Sequences(**(vars(rollouts(0)) | {"advantages": np.zeros(ROWS, np.float32)}))
    made = make(config, make_decoder(), micro_batch_tokens=micro_batch_tokens)
    report = made.update(rows)
    found = leaves(made.optimizer.adam.state)[f"{name}.m"] / (1 - config.optimizer_beta1)
    direction = mx.random.normal(found.shape, key=mx.random.key(1))
    direction = direction / mx.sqrt(direction.square().sum())
    ends = {}
    for steps in (-2, -1, 1, 2):
        model = make_decoder()
        weights = leaves(model.parameters())
        model.load_weights([(name, weights[name] + steps * step * direction)], strict=False)
        ends[steps] = mean_entropy(model, rows)
    slope = -coefficient * (8 * (ends[1] - ends[-1]) - (ends[2] - ends[-2])) / (12 * step)
    assert float((found * direction).sum()) == pytest.approx(slope, rel=2e-3, abs=1e-6)
    assert abs(slope) > 1e-4
    assert report["loss"] == pytest.approx(-coefficient * mean_entropy(make_decoder(), rows), rel=1e-5)


def test_the_entropy_bonus_joins_the_policy_term():
    """Gradients add up: of both, of the bonus alone (advantages 0), of the policy term alone."""

    def gradients(coefficient, scale):
        config = trainer(num_iterations=1, grpo_beta=0.0, grad_clip_norm=0.0, loss=LossConfig(entropy_coef=coefficient))
        rows = rollouts(0)
        made = make(config, make_decoder())
        made.update(Sequences(**(vars(rows) | {"advantages": scale * rows.advantages})))
        return {n: np.array(m) for n, m in leaves(made.optimizer.adam.state).items() if n.endswith(".m")}

    both, bonus, policy = gradients(0.5, 1.0), gradients(0.5, 0.0), gradients(0.0, 1.0)
    for name, leaf in both.items():
        np.testing.assert_allclose(leaf, bonus[name] + policy[name], rtol=1e-4, atol=1e-7, err_msg=name)
    assert max(np.abs(leaf).max() for leaf in bonus.values()) > 1e-3


# Gradients that are no numbers.


class WrongInTheSecond(Grpo):
    """A loss that is NaN from its second call on."""

    calls = 0

    def loss(self, logprobs, entropies, batch, totals):
        self.calls += 1
        output = super().loss(logprobs, entropies, batch, totals)
        return output if self.calls == 1 else LossOutput(output.loss * mx.nan, output.metrics)


def snapshot(made):
    return {name: np.array(leaf) for name, leaf in leaves(made.policy.model.parameters()).items()}


def assert_untouched(made, weights, steps=0):
    assert int(made.optimizer.adam.step) == steps
    for name, leaf in leaves(made.policy.model.parameters()).items():
        np.testing.assert_array_equal(np.array(leaf), weights[name], err_msg=name)


def test_the_self_check_looks_at_the_first_step_alone(monkeypatch):
    """In later ones the clip may have stopped every token, and no leaf is to blame."""
    looked = []
    monkeypatch.setattr(SelfCheck, "movement", lambda *_: looked.append("here"))
    make(trainer(grpo_beta=0.0)).update(rollouts(0))
    assert looked == ["here"]


def test_a_second_step_that_is_no_number_leaves_the_weights_of_the_first():
    config = trainer(num_iterations=2, grpo_beta=0.0)
    made, one = make(config, algorithm=WrongInTheSecond), make(config, algorithm=WrongInTheSecond)
    with pytest.raises(TrainingError, match="gradient of table is not finite"):
        made.update(rollouts(0))
    one._step(one.recorder.record(rollouts(0)), None)
    assert_untouched(made, snapshot(one), steps=1)


DUAL = {
    "use_dual_gradients": True,
    "thinking_layer_start": 0,
    "thinking_layer_end": 0,
    "answer_layer_start": 1,
    "answer_layer_end": 1,
}


def test_a_region_that_is_no_number_names_its_leaf():
    made = make(trainer(grpo_beta=0.0, **DUAL), make_decoder())
    weights, rows = snapshot(made), rollouts(0)
    rows.advantages[2] = np.inf  # a row of answer tokens only
    with pytest.raises(TrainingError, match=r"gradient of model\.layers\.1\.\S+ is not finite"):
        made.update(rows)
    assert_untouched(made, weights)


def test_a_reference_that_is_no_number_names_a_leaf():
    """A token whose embedding overflowed, and which only a reference contains."""
    model = make_decoder()
    table = np.array(model.model.embed_tokens.weight)
    table[VOCABULARY - 1] = np.nan
    model.model.embed_tokens.weight = mx.array(table)
    config = trainer(num_iterations=1, grpo_beta=0.0, use_sft_on_answer=True, sft_mode="answer_only", **DUAL)
    made = make(config, model)
    reference = Sequences(
        [np.array([1, VOCABULARY - 1])], [np.array([2, 3])], np.ones(1, np.float32), np.zeros(1, bool)
    )
    weights = snapshot(made)
    with pytest.raises(TrainingError, match=r"gradient of model\.layers\.1\.\S+ is not finite"):
        made.update(Sequences([], [], np.zeros(0, np.float32), np.zeros(0, bool)), reference)
    assert_untouched(made, weights)
