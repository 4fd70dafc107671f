"""The per-token terms of a policy loss: what one token adds before anything is averaged.

Shapes: log-probabilities and mask [N, C]; advantages [N, 1], or [N, C] where each token has its own; ratios [N, C],
or [N, 1] at the sequence level.
Everything arrives clean: positions outside the mask hold 0.
"""

import math

import mlx.core as mx

from pipelines.config import LossConfig

SAPO_TEMPERATURE_UP = 1.0
SAPO_TEMPERATURE_DOWN = 1.05
"""SAPO's gate temperatures for positive and for other advantages, as in the paper."""

VESPO_SHAPE = {"up": (2.0, 3.0), "down": (3.0, 2.0)}
"""VESPO's (k, lambda) for advantages >= 0 and < 0."""


def log_ratio(new: mx.array, old: mx.array, mask: mx.array, *, per_row: bool) -> mx.array:
    """log(pi / pi_old) per token [N, C], or its mean over the row's tokens [N, 1] at the sequence level.

    The sequence ratio exp(mean_t(new - old)) is GSPO's (arXiv:2507.18071, eq. 7).
    """
    difference = new - old
    if not per_row:
        return difference
    return difference.sum(axis=1, keepdims=True) / mx.maximum(mask.sum(axis=1, keepdims=True), 1)


def clipped(ratio: mx.array, advantages: mx.array, config: LossConfig) -> mx.array:
    """-min(min(r, delta) A, clip(r, 1 - epsilon, 1 + epsilon_high) A).

    PPO's pessimistic bound as GRPO uses it (arXiv:2402.03300), with DAPO's wider upper range (arXiv:2503.14476);
    delta bounds the loss where A < 0 and the ratio explodes (null: no bound).
    """
    bounded = ratio if config.delta is None else mx.minimum(ratio, config.delta)
    inside = mx.clip(ratio, 1 - config.epsilon, 1 + config.epsilon_high)
    return -mx.minimum(bounded * advantages, inside * advantages)


def weighted_logprob(ratio: mx.array, advantages: mx.array, new: mx.array, config: LossConfig) -> mx.array:
    """-sg[min(r, epsilon_high)] A new: CISPO (arXiv:2506.13585), REINFORCE with a capped importance weight.

    No token's gradient is ever clipped away. `epsilon_high` is an absolute cap here, such as 5.
    """
    return -mx.stop_gradient(mx.minimum(ratio, config.epsilon_high)) * advantages * new


def soft_gated(ratio: mx.array, advantages: mx.array) -> mx.array:
    """-(4 / tau) sigmoid(tau (r - 1)) A: SAPO (arXiv:2511.20347), a smooth gate in place of the clip.

    tau is 1.0 where A > 0 and 1.05 elsewhere; the slope at r = 1 is exactly A.
    """
    temperature = mx.where(advantages > 0, SAPO_TEMPERATURE_UP, SAPO_TEMPERATURE_DOWN)
    return -(4 / temperature) * mx.sigmoid(temperature * (ratio - 1)) * advantages


def gamma_weighted(token_log_ratio: mx.array, advantages: mx.array, new: mx.array) -> mx.array:
    """-sg[phi(w)] A new with phi(w) = exp(lambda) w^k exp(-lambda w): VESPO.

    w = exp(sum_t(new - old)) is the ratio of the whole row; phi(1) = 1, and phi falls off on both sides.
    """
    return -gamma_weight(token_log_ratio, advantages) * advantages * new


def gamma_weight(token_log_ratio: mx.array, advantages: mx.array) -> mx.array:
    """phi(w) of every row, [N, 1], without gradient; log w is held within [log 1e-8, 20]."""
    log_w = mx.clip(token_log_ratio, -20.0, 20.0).sum(axis=1, keepdims=True)
    log_w = mx.clip(log_w, math.log(1e-8), 20.0)
    (power_up, rate_up), (power_down, rate_down) = VESPO_SHAPE["up"], VESPO_SHAPE["down"]
    power = mx.where(advantages >= 0, power_up, power_down)
    rate = mx.where(advantages >= 0, rate_up, rate_down)
    return mx.stop_gradient(mx.exp(rate + power * log_w - rate * mx.exp(log_w)))
