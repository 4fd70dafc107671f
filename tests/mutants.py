"""Ways to get the mathematics of advantages and losses wrong, one at a time: what `test_mutations.py` must notice.

Each mutant replaces a text that stands exactly once in its file of `pipelines/algorithms`. Changes that compute the
same thing are not listed.
"""

from typing import NamedTuple


class Mutant(NamedTuple):
    """One wrong version of one file."""

    file: str
    old: str
    new: str
    why: str


MUTANTS = [
    # surrogates: the term of one token
    Mutant("surrogates", "difference = new - old", "difference = old - new", "ratio upside down"),
    Mutant(
        "surrogates",
        "difference.sum(axis=1, keepdims=True) / mx.maximum(mask.sum(axis=1, keepdims=True), 1)",
        "difference.sum(axis=1, keepdims=True)",
        "row ratio is the product, not the geometric mean",
    ),
    Mutant(
        "surrogates",
        "return -mx.minimum(bounded * advantages",
        "return mx.minimum(bounded * advantages",
        "sign of the clipped term",
    ),
    Mutant(
        "surrogates",
        "return -mx.minimum(bounded * advantages",
        "return -mx.maximum(bounded * advantages",
        "optimistic instead of pessimistic bound",
    ),
    Mutant(
        "surrogates",
        "1 - config.epsilon, 1 + config.epsilon_high",
        "1 - config.epsilon_high, 1 + config.epsilon",
        "clip range the wrong way round",
    ),
    Mutant("surrogates", "mx.minimum(ratio, config.delta)", "mx.maximum(ratio, config.delta)", "delta as a floor"),
    Mutant(
        "surrogates",
        "-mx.stop_gradient(mx.minimum(ratio, config.epsilon_high)) * advantages * new",
        "-mx.minimum(ratio, config.epsilon_high) * advantages * new",
        "gradient through cispo's weight",
    ),
    Mutant(
        "surrogates", "mx.minimum(ratio, config.epsilon_high)", "mx.maximum(ratio, config.epsilon_high)", "cispo's cap"
    ),
    Mutant(
        "surrogates",
        "mx.minimum(ratio, config.epsilon_high)",
        "mx.minimum(ratio, 1 + config.epsilon_high)",
        "cispo's cap as a distance from 1",
    ),
    Mutant("surrogates", "-(4 / temperature)", "(4 / temperature)", "sign of sapo"),
    Mutant("surrogates", "-(4 / temperature)", "-4", "sapo's slope at 1 is not A"),
    Mutant("surrogates", "advantages > 0, SAPO", "advantages < 0, SAPO", "sapo's two temperatures swapped"),
    Mutant("surrogates", "(ratio - 1)) * advantages", "ratio) * advantages", "sapo's gate is not centred on 1"),
    Mutant("surrogates", "power * log_w - rate", "power * log_w + rate", "vespo's weight grows without bound"),
    Mutant("surrogates", "mx.stop_gradient(mx.exp(rate", "(mx.exp(rate", "gradient through vespo's weight"),
    # kl
    Mutant("kl", "return new - ref", "return ref - new", "sign of k1"),
    Mutant("kl", "(ref - new).square() / 2", "(ref - new).square()", "k2 without its half"),
    Mutant("kl", "mx.exp(ref - new) - (ref - new) - 1", "mx.exp(ref - new) - (ref - new)", "k3 without its 1"),
    Mutant("kl", "mx.exp(ref - new)", "mx.exp(new - ref)", "k3 of the other direction"),
    Mutant(
        "kl",
        "estimate * ratio if bias_correction else estimate",
        "estimate if bias_correction else estimate * ratio",
        "bias correction when it is off",
    ),
    Mutant("kl", "return estimate * ratio if", "return estimate * mx.stop_gradient(ratio) if", "half a correction"),
    # losses: averages
    Mutant("losses", "(terms.sum(axis=1) / over.by_row)", "(terms.sum(axis=1) / over.budget)", "grpo as dr_grpo"),
    Mutant("losses", "/ over.by_row).sum() / over.rows", "/ over.by_row).sum() / over.items", "rows <-> items"),
    Mutant("losses", "return terms.sum() / over.items", "return terms.sum() / over.given", "dapo per micro-batch"),
    Mutant("losses", "return terms.sum() / over.items", "return terms.sum() / over.rows", "items <-> rows"),
    Mutant("losses", "(over.rows * over.budget)", "(over.rows * over.by_row.max())", "budget <-> longest row"),
    Mutant("losses", "(over.rows * over.budget)", "over.items", "dr_grpo as dapo"),
    Mutant("losses", "return terms.sum() / over.given", "return terms.sum() / over.items", "bnpo as dapo"),
    Mutant("losses", '"sapo": (sapo_term, mean_of_row_means)', '"sapo": (sapo_term, mean_over_update)', "sapo's mean"),
    Mutant(
        "losses", "mask.shape[0] if rows is None", "(mask.max(axis=1) > 0).sum() if rows is None", "empty rows left out"
    ),
    Mutant("losses", "over.items\n    return LossOutput", "over.rows\n    return LossOutput", "entropy bonus per row"),
    # losses: what is in them
    Mutant(
        "losses", "mx.stop_gradient(new if old", "(new if old", "no gradient on-policy: both sides of the ratio move"
    ),
    Mutant("losses", "terms = terms + beta * kl", "terms = terms + kl", "KL not multiplied by beta"),
    Mutant("losses", "terms = terms + beta * kl", "terms = terms - beta * kl", "sign of the KL"),
    Mutant(
        "losses",
        "terms = terms + beta * kl",
        "terms = _undecided_only(terms + beta * kl, entropies, tokens.mask, config, entropy_threshold)",
        "entropy filter takes the KL too",
    ),
    Mutant("losses", "loss - config.entropy_coef", "loss + config.entropy_coef", "sign of the entropy bonus"),
    Mutant("losses", "(entropies) >= threshold", "(entropies) > threshold", "the token at the threshold is lost"),
    Mutant("losses", "(entropies) >= threshold", "(entropies) <= threshold", "the certain tokens learn"),
    Mutant(
        "losses",
        "mask = (mask > 0).astype(mx.float32)",
        "mask = (mx.roll(mask, 1, axis=1) > 0).astype(mx.float32)",
        "mask one token late",
    ),
    Mutant(
        "losses",
        "mask = (mask > 0).astype(mx.float32)",
        "mask = (mx.roll(mask, -1, axis=1) > 0).astype(mx.float32)",
        "mask one token early: without the last one",
    ),
    Mutant("losses", "mx.where(mask > 0, values, 0.0)", "(values * (mask > 0))", "NaN in the padding"),
    Mutant("losses", "mx.zeros_like(mask), mask)", "mask, mx.zeros_like(mask))", "only truncated rows are kept"),
    Mutant("losses", "per_row=config.sequence_level", 'per_row=config.level == "sequence"', "gspo by token"),
    Mutant("losses", "config.sequence_level or", "False and", "an advantage per token beside a ratio per row"),
    # entropy
    Mutant("entropy", "(1 - quantile) *", "quantile *", "the other quantile"),
    Mutant("entropy", "mx.float32), mx.inf)", "mx.float32), -mx.inf)", "padding counts as certain"),
    Mutant("entropy", "(1 - quantile) * mx.maximum(count - 1, 0)", "(1 - quantile) * count", "rank off by one"),
    Mutant("entropy", "lower + 1, mx.maximum", "lower, mx.maximum", "no interpolation"),
    Mutant("entropy", "ROUNDING * count, whole, position)", "0, whole, position)", "ranks off by a rounding error"),
    # importance
    Mutant("importance", "mx.stop_gradient(old) - sampler", "sampler - mx.stop_gradient(old)", "weight upside down"),
    Mutant("importance", "difference.sum(axis=1", "difference.mean(axis=1", "row weight is no product"),
    Mutant("importance", "(weights <= high), weights, 0.0)", "(weights <= high), weights, 1.0)", "masked to 1, not 0"),
    Mutant("importance", 'bound == "truncate"', 'bound == "mask"', "truncate <-> mask"),
    Mutant("importance", 'scope == "sequence"', 'scope == "token"', "token <-> sequence"),
    Mutant("importance", "low=None, high=config.sampler", "high=None, low=config.sampler", "the cap as a floor"),
    # metrics
    Mutant(
        "loss_metrics", "1 - config.epsilon) & (advantages < 0)", "1 - config.epsilon) & (advantages > 0)", "low clip"
    ),
    Mutant("loss_metrics", "(ratio > 1 + config.epsilon_high)", "(ratio > 1 + config.epsilon)", "high clip's bound"),
    Mutant("loss_metrics", "/ mx.maximum(mask.sum(), 1)", "/ mask.size", "means over padding"),
    Mutant("loss_metrics", "value * count for", "value for", "micro-batches weigh alike in reports"),
    Mutant(
        "loss_metrics", "mx.where(some, by_row_low, mx.inf).min()", "by_row_low.min()", "empty rows are never clipped"
    ),
    Mutant("loss_metrics", "mx.maximum(low, high)", "low * high", "clipped on either side <-> on both"),
    # advantages
    Mutant(
        "advantages",
        "mx.maximum(count - 1, 1))\n    largest",
        "mx.maximum(count, 1))\n    largest",
        "ddof 0 for 1",
    ),
    Mutant("advantages", "values / (judge.std + config.epsilon)", "values / (judge.std)", "no epsilon"),
    Mutant(
        "advantages",
        "spread = _spread(total.reshape(-1, width))",
        "spread = _spread(total.reshape(1, -1))",
        "batch baseline",
    ),
    Mutant("advantages", 'batch if config.scale == "batch" else spread', "spread", "scale batch as group"),
    Mutant("advantages", 'if config.scale != "none":', "if True:", "scale none as group"),
    Mutant("advantages", "mx.where(present.any(axis=1), total, mx.nan)", "total", "abstained counts as 0"),
    Mutant("advantages", "rewards - first, 0.0)", "rewards, 0.0)", "equal rewards leave a rounding error"),
    Mutant("advantages", "(count >= 2)", "(count >= 1)", "one reward is compared with itself"),
    Mutant("advantages", "reach <= ROUNDING * largest", "reach <= 0", "rounding noise is a signal"),
    Mutant(
        "advantages",
        "mx.where(scorable, relative - relative.sum(axis=1, keepdims=True) / mx.maximum(count, 1), 0.0)",
        "relative - relative.sum(axis=1, keepdims=True) / mx.maximum(count, 1)",
        "unscored rows pay the mean",
    ),
    Mutant(
        "advantages",
        "relative.sum(axis=1, keepdims=True) / mx.maximum(count, 1)",
        "relative.mean(axis=1, keepdims=True)",
        "abstained counts as the group's first reward in the mean",
    ),
    Mutant(
        "advantages",
        "(spread.count / mx.maximum(spread.count - 1, 1))",
        "((spread.count - 1) / spread.count)",
        "n / (n - 1)",
    ),
    Mutant(
        "advantages",
        'config.baseline != "leave_one_out"',
        'config.baseline == "leave_one_out"',
        "leave-one-out for all",
    ),
    Mutant(
        "advantages", "mx.where(present, table, 0.0) * weights)", "mx.where(present, table, 0.0))", "weights forgotten"
    ),
    Mutant("advantages", "and group_size == 1", "and group_size > 1", "auto the wrong way round"),
    Mutant(
        "advantages", "(batch.centered / (batch.std + config.epsilon))", "(batch.centered)", "sum is not standardised"
    ),
    Mutant(
        "advantages", "(spread.std + config.epsilon)\n    scores", "1.0\n    scores", "rewards keep their own scale"
    ),
    Mutant("advantages", "* _made_up_for(scores, weights)", "", "abstaining looks average"),
    Mutant(
        "advantages", ".reshape(-1, groups).all(axis=0)", ".reshape(-1, groups).any(axis=0)", "one flat reward silences"
    ),
    Mutant("advantages", "silent & compared", "silent", "a lone row counts as a flat group"),
    Mutant("advantages", "not (drop and equal)", "not equal", "groups dropped although told to keep them"),
]
