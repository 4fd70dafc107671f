"""KL divergence from the reference, estimated per token from the sampled token alone (Schulman, "Approximating KL").

With d = ref - new, the log-probabilities of the sampled token under the reference and the policy:
k1 = -d is unbiased and noisy, k2 = d^2 / 2 is biased and smooth, k3 = exp(d) - d - 1 is unbiased and never negative.
"""

from collections.abc import Callable

import mlx.core as mx


def k1(new: mx.array, ref: mx.array) -> mx.array:
    """log(pi / pi_ref) = new - ref."""
    return new - ref


def k2(new: mx.array, ref: mx.array) -> mx.array:
    """(ref - new)^2 / 2."""
    return (ref - new).square() / 2


def k3(new: mx.array, ref: mx.array) -> mx.array:
    """exp(ref - new) - (ref - new) - 1, the choice of DeepSeekMath (arXiv:2402.03300, eq. 4)."""
    return mx.exp(ref - new) - (ref - new) - 1


ESTIMATORS: dict[str, Callable[[mx.array, mx.array], mx.array]] = {"k1": k1, "k2": k2, "k3": k3}


def token_kl(new: mx.array, ref: mx.array, ratio: mx.array, estimator: str, *, bias_correction: bool) -> mx.array:
    """KL [N, C] of every token; with bias correction times the ratio, for tokens drawn from an older policy.

    `ratio` is pi / pi_old, [N, C] or [N, 1], and keeps its gradient.
    """
    estimate = ESTIMATORS[estimator](new, ref)
    return estimate * ratio if bias_correction else estimate
