"""Every policy loss in numpy, token by token in float64: the readable twin of `pipelines.algorithms.losses`.

Written as sums over rows and tokens, without masks or broadcasting, so that nothing is shared with what it judges.
What a formula holds constant is taken from `at`, the point of differentiation: central differences of `policy_loss`
in `new` and `entropies`, with `at` fixed, are then its gradient.

Shapes: N completions of at most C tokens; arrays [N, C] unless said otherwise.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Given:
    """What a loss is told besides the policy."""

    mask: np.ndarray  # bool
    advantages: np.ndarray  # [N] or [N, C]
    budget: int  # the longest completion allowed
    old: np.ndarray | None = None  # None: on-policy
    ref: np.ndarray | None = None
    sampler: np.ndarray | None = None
    beta: float = 0.0
    correction: tuple = ("sequence_mask", 0.0, 3.0)  # mode, lowest and highest weight


def policy_loss(new, entropies, given, config, at=None):
    """The loss of one update; `at` is (new, entropies) with the values that stop-gradients hold."""
    held_new, held_entropies = (new, entropies) if at is None else at
    old = held_new if given.old is None else given.old
    tokens = [np.flatnonzero(row) for row in given.mask]
    active = max(sum(map(len, tokens)), 1)
    threshold = -np.inf
    if config.top_entropy_quantile < 1:
        threshold = np.quantile(held_entropies[given.mask], 1 - config.top_entropy_quantile)
    rows = []
    for row, where in enumerate(tokens):
        ratios, held_ratios = (
            row_ratios(values[row, where] - old[row, where], config.sequence_level) for values in (new, held_new)
        )
        weights = sampler_weights(row, where, old, given)
        terms = []
        for t, ratio, held_ratio, weight in zip(where, ratios, held_ratios, weights, strict=True):
            advantage = given.advantages[row] if given.advantages.ndim == 1 else given.advantages[row, t]
            term = surrogate(ratio, held_ratio, advantage, new[row, t], config)
            term = weight * term if held_entropies[row, t] >= threshold else 0.0
            if given.beta:
                correction = ratio if config.kl_bias_correction else 1.0
                term += given.beta * divergence(new[row, t], given.ref[row, t], config.kl_estimator) * correction
            terms.append(term)
        rows.append(terms)
    bonus = config.entropy_coef * entropies[given.mask].sum() / active
    return averaged(rows, active, given.budget, config.type) - bonus


def row_ratios(differences, sequence_level):
    """One probability ratio for each token of a row; at the sequence level all are their geometric mean."""
    if sequence_level and len(differences):
        differences = np.full_like(differences, differences.mean())
    return np.exp(differences)


def surrogate(ratio, held_ratio, advantage, new, config):
    """What one token adds before anything is averaged."""
    if config.type == "cispo":
        return -min(held_ratio, config.epsilon_high) * advantage * new
    if config.type == "sapo":
        tau = 1.0 if advantage > 0 else 1.05
        return -4 / tau / (1 + np.exp(-tau * (ratio - 1))) * advantage
    capped = ratio if config.delta is None else min(ratio, config.delta)
    clipped = min(max(ratio, 1 - config.epsilon), 1 + config.epsilon_high)
    return -min(capped * advantage, clipped * advantage)


def divergence(new, ref, estimator):
    """Estimate of KL(policy, reference) from one token."""
    d = ref - new
    return {"k1": -d, "k2": d**2 / 2, "k3": np.exp(d) - d - 1}[estimator]


def sampler_weights(row, where, old, given):
    """pi_old / pi_sampler for each token of a row, bounded."""
    if given.sampler is None:
        return np.ones(len(where))
    mode, low, high = given.correction
    differences = old[row, where] - given.sampler[row, where]
    if mode.startswith("sequence"):
        differences = np.full(len(where), differences.sum())
    weights = np.exp(differences)
    if mode.endswith("truncate"):
        return np.clip(weights, low, high)
    return np.array([weight if low <= weight <= high else 0.0 for weight in weights])


def averaged(rows, active, budget, kind):
    """The terms of all rows as one number."""
    total = sum(sum(row) for row in rows)
    if kind in ("dapo", "bnpo", "cispo"):
        return total / active
    if kind == "dr_grpo":
        return total / (len(rows) * budget)
    return sum(sum(row) / len(row) for row in rows if row) / len(rows)
