"""GRPO in numpy, top to bottom: the readable twin that the real trainer must equal step for step.

Rewards -> advantages -> loss and its gradient with respect to log-probabilities -> gradient of the policy -> clipping
-> AdamW. Float64, no framework. The policy is the smallest there is: a bigram, whose table [V, V] holds the logits of
the next token (columns) given the last one (rows), so that a log-probability and its gradient fit in three lines.

Shapes: N = B * G completions of at most C tokens, V vocabulary.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Settings:
    """Everything an update depends on besides the data."""

    group_size: int
    loss: str = "dapo"  # dapo | grpo | dr_grpo
    epsilon: float = 0.2
    epsilon_high: float = 0.28
    beta: float = 0.0
    advantage_epsilon: float = 1e-4
    drop_zero_variance_groups: bool = True
    max_completion_length: int = 0  # dr_grpo's budget in tokens
    learning_rate: float = 1e-3
    warmup_steps: int = 0
    warmup_init: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.95
    adam_epsilon: float = 1e-8
    weight_decay: float = 0.01
    clip_norm: float = 1.0


def group_advantages(rewards, group_size, epsilon):
    """Advantages [N] = (r - mean) / (std + epsilon) in each group (std with ddof = 1); all equal [N] bool."""
    groups = np.asarray(rewards, dtype=np.float64).reshape(-1, group_size)
    relative = groups - groups[:, :1]  # so that equal rewards give exactly 0
    centered = relative - relative.mean(axis=1, keepdims=True)
    std = np.sqrt((centered**2).sum(axis=1, keepdims=True) / (group_size - 1))
    equal = np.repeat((relative == 0).all(axis=1), group_size)
    return (centered / (std + epsilon)).reshape(-1), equal


def denominators(mask, settings):
    """[N, 1]: what each row's tokens are divided by."""
    rows, tokens = len(mask), mask.sum(axis=1, keepdims=True)
    return {
        "dapo": np.full((rows, 1), mask.sum()),  # every token of the update weighs the same
        "grpo": rows * np.maximum(tokens, 1),  # every completion weighs the same
        "dr_grpo": np.full((rows, 1), rows * settings.max_completion_length),
    }[settings.loss]


def loss_and_gradient(new, old, ref, advantages, mask, settings):  # noqa: PLR0917
    """Loss, its gradient [N, C] with respect to `new`, and the mean KL, from log-probabilities [N, C].

    Per token: -min(r A, clip(r, 1 - eps, 1 + eps_high) A) + beta (exp(d) - d - 1), r = exp(new - old), d = ref - new.
    d/dnew: -r A where the first is the smaller one or the clip is idle, 0 where clipped; beta (1 - exp(d)).
    """
    advantages, ratio = advantages[:, None], np.exp(new - old)
    free, bounded = ratio * advantages, np.clip(ratio, 1 - settings.epsilon, 1 + settings.epsilon_high) * advantages
    kl = np.exp(ref - new) - (ref - new) - 1
    terms = -np.minimum(free, bounded) + settings.beta * kl
    slopes = np.where(free <= bounded, -free, 0.0) + settings.beta * (1 - np.exp(ref - new))
    weights = mask / denominators(mask, settings)
    return (terms * weights).sum(), slopes * weights, (kl * mask).sum() / mask.sum()


def log_softmax(logits):
    """Along the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def previous_tokens(prompts, completions):
    """[N, C]: the token each completion token follows; the first follows its prompt's last."""
    last = np.array([prompt[-1] for prompt in prompts])
    return np.concatenate([last[:, None], completions[:, :-1]], axis=1)


def bigram_logprobs(table, previous, completions):
    """[N, C]: log p(token | previous)."""
    return np.take_along_axis(log_softmax(table[previous]), completions[..., None], axis=-1)[..., 0]


def bigram_gradient(table, previous, completions, slopes):
    """[V, V]: sum over tokens of slope * d log p(token | previous) / d table = slope * (onehot(token) - p)."""
    gradient = np.zeros_like(table)
    probabilities = np.exp(log_softmax(table[previous]))
    np.add.at(gradient, previous, -slopes[..., None] * probabilities)
    np.add.at(gradient, (previous, completions), slopes)
    return gradient


def clip_by_global_norm(gradient, limit):
    """The gradient scaled down to `limit` where its norm exceeds it, and its norm before."""
    norm = np.sqrt((gradient**2).sum())
    return gradient * min(1.0, limit / (norm + 1e-6)), norm


class AdamW:
    """AdamW with bias correction and a linear warm-up from `warmup_init`, then a constant rate."""

    def __init__(self, shape, settings):
        self.settings, self.step = settings, 0
        self.first, self.second = np.zeros(shape), np.zeros(shape)

    def learning_rate(self):
        """The rate of the next step, counted from 0."""
        s = self.settings
        if self.step >= s.warmup_steps:
            return s.learning_rate
        return s.warmup_init + (s.learning_rate - s.warmup_init) * self.step / s.warmup_steps

    def apply(self, parameter, gradient):
        """The parameter after one step."""
        s, rate = self.settings, self.learning_rate()
        self.step += 1
        self.first = s.beta1 * self.first + (1 - s.beta1) * gradient
        self.second = s.beta2 * self.second + (1 - s.beta2) * gradient**2
        first = self.first / (1 - s.beta1**self.step)
        second = self.second / (1 - s.beta2**self.step)
        decayed = parameter * (1 - rate * s.weight_decay)
        return decayed - rate * first / (np.sqrt(second) + s.adam_epsilon)


class Twin:
    """A bigram policy, its frozen reference and its optimizer."""

    def __init__(self, table, ref_table, settings):
        self.table, self.ref_table = np.array(table, dtype=np.float64), np.array(ref_table, dtype=np.float64)
        self.settings, self.optimizer = settings, AdamW(self.table.shape, settings)

    def update(self, prompts, completions, lengths, rewards):
        """One on-policy update. prompts: N id sequences; completions [N, C]; lengths, rewards [N]; groups adjacent."""
        s = self.settings
        advantages, equal = group_advantages(rewards, s.group_size, s.advantage_epsilon)
        kept = np.flatnonzero(~equal) if s.drop_zero_variance_groups else np.arange(len(advantages))
        if not len(kept):  # nothing to learn from: no step at all
            return {"loss": 0.0, "kl": 0.0, "grad_norm": 0.0, "rows": 0, "tokens": 0, "learning_rate": 0.0}
        completions = np.asarray(completions)[kept]
        previous = previous_tokens([prompts[row] for row in kept], completions)
        mask = (np.arange(completions.shape[1]) < np.asarray(lengths)[kept][:, None]).astype(np.float64)

        new = bigram_logprobs(self.table, previous, completions)
        ref = bigram_logprobs(self.ref_table, previous, completions)
        loss, slopes, kl = loss_and_gradient(new, new, ref, advantages[kept], mask, s)
        gradient = bigram_gradient(self.table, previous, completions, slopes)
        gradient, norm = clip_by_global_norm(gradient, s.clip_norm)
        rate = self.optimizer.learning_rate()
        self.table = self.optimizer.apply(self.table, gradient)
        return {
            "loss": loss,
            "kl": kl,
            "grad_norm": norm,
            "rows": len(kept),
            "tokens": int(mask.sum()),
            "learning_rate": rate,
        }
