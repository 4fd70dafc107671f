"""Every metric a run may log: its name, its unit and what it means, once.

`docs/metrics.md` is written from this table by `python -m pipelines.monitoring.names`, and `metrics.jsonl` takes no
name that is not in it. A part in angle brackets stands for any name: `rewards/<name>/mean`.
"""

import difflib
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pipelines.errors import TrainingError

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"


@dataclass(frozen=True)
class Metric:
    """One row of the table."""

    name: str
    unit: str
    meaning: str

    @property
    def pattern(self) -> re.Pattern[str]:
        """What a logged name must match whole."""
        parts = re.split(r"<\w+>", self.name)
        return re.compile(".+".join(re.escape(part) for part in parts))


METRICS = (
    Metric("reward", "reward", "Mean over completions of the total reward (weighted mean of the components)."),
    Metric("reward_std", "reward", "Standard deviation of the total reward over the completions of the update."),
    Metric(
        "reward_length_correlation",
        "1",
        "Pearson's correlation of reward and length, each above its group's mean: 1 = the longest earns most.",
    ),
    Metric("rewards/<name>/mean", "reward", "Mean of one component over the completions where it did not abstain."),
    Metric("rewards/<name>/std", "reward", "Standard deviation of one component over those completions."),
    Metric("rewards/failures", "count", "Rewards that raised, or returned no finite number, in this update."),
    Metric("rewards/sandbox_failures", "count", "Code rewards that abstained because the sandbox failed, twice."),
    Metric("frac_reward_zero_std", "fraction", "Groups whose completions all got the same reward: they teach nothing."),
    Metric("groups/all_equal", "count", "The same groups, counted."),
    Metric("groups/refilled", "count", "Fresh prompts drawn in place of such groups (trainer.advantage.refill)."),
    Metric("loss", "loss", "The loss of the update. Near 0 on-policy, where only its gradient has a meaning."),
    Metric("policy_loss", "loss", "The loss without entropy bonus and value loss; logged where there is one."),
    Metric("entropy_coef", "1", "Weight of the entropy bonus; logged when there is one."),
    Metric("kl", "nats per token", "Estimated KL divergence of the policy from the reference model."),
    Metric("entropy", "nats per token", "Mean entropy of the next-token distribution on completion tokens."),
    Metric("clip_ratio/low_mean", "fraction", "Tokens whose ratio was clipped from below (advantage < 0)."),
    Metric("clip_ratio/low_min", "fraction", "The same, in the row where it is smallest."),
    Metric("clip_ratio/high_mean", "fraction", "Tokens whose ratio was clipped from above (advantage > 0)."),
    Metric("clip_ratio/high_max", "fraction", "The same, in the row where it is largest."),
    Metric("clip_ratio/region_mean", "fraction", "Tokens clipped on either side."),
    Metric("cispo_clip_ratio", "fraction", "Tokens with advantage > 0 whose weight was capped (loss type cispo)."),
    Metric(
        "vespo/phi_seq_mean", "1", "Mean weight of a token's completion (type vespo, for callers of `policy_loss`)."
    ),
    Metric(
        "ratio/mean",
        "1",
        "Mean probability ratio of policy to sampler (with num_iterations, to the policy before the update).",
    ),
    Metric("loss/thinking", "loss", "The share of thinking tokens in the loss, with dual gradients."),
    Metric("loss/answer", "loss", "The share of answer tokens in the loss, with dual gradients."),
    Metric("value_loss", "reward squared", "The value head's loss, before its weight (ppo)."),
    Metric("critic/vf_clipfrac", "fraction", "Tokens whose value was held by trainer.ppo.value_clip."),
    Metric(
        "critic/vf_explained_var",
        "fraction",
        "Variance of the returns that the values before the update explain: 1 = all, 0 or less = none.",
    ),
    Metric("critic/values/mean", "reward", "Mean value of a token before the update."),
    Metric("critic/returns/mean", "reward", "Mean return of a token: what its value should have been."),
    Metric("sft_loss", "nats per token", "The supervised term, before its weight: cross-entropy of the references."),
    Metric(
        "sft_loss/thinking",
        "nats per token",
        "Cross-entropy of the references' thinking tokens, where they have a weight.",
    ),
    Metric(
        "sft_loss/answer", "nats per token", "Cross-entropy of the references' answer tokens, where they have a weight."
    ),
    Metric("grad_norm", "L2 norm", "Norm of the whole gradient, before clipping."),
    Metric("learning_rate", "1", "Learning rate of the optimizer step."),
    Metric("mismatch_kl", "nats per token", "Mean distance between the sampler's log-probabilities and the trainer's."),
    Metric("sampling/sampling_logp_difference/mean", "nats", "The same where the loss corrects for it, on average."),
    Metric("sampling/sampling_logp_difference/max", "nats", "The same where the loss corrects for it, at its worst."),
    Metric("completions/mean_length", "tokens", "Mean length of a completion, end token counted."),
    Metric("completions/min_length", "tokens", "Length of the shortest completion."),
    Metric("completions/max_length", "tokens", "Length of the longest completion."),
    Metric("completions/clipped_ratio", "fraction", "Completions cut off at the length limit."),
    Metric("completions/mean_thinking_length", "tokens", "Mean length of the thinking region."),
    Metric("completions/mean_answer_length", "tokens", "Mean length of the answer region."),
    Metric("num_tokens", "tokens", "Completion tokens seen since the run began."),
    Metric("epoch", "epochs", "Passes over the training rows since the run began."),
    Metric("time/rollout_seconds", "s", "Sampling the completions."),
    Metric("time/reward_seconds", "s", "Scoring them, as far as it was waited for after the last one was sampled."),
    Metric("time/rewards/<name>", "s", "Work of one reward, added up over the workers: what makes scoring slow."),
    Metric("time/update_seconds", "s", "Gradients and the optimizer step."),
    Metric("time/step_seconds", "s", "The whole update, everything above included."),
    Metric("rollout/tokens_per_second", "tokens/s", "Completion tokens sampled per second of rollout."),
    Metric(
        "update/tokens_per_second",
        "tokens/s",
        "Tokens trained on per second of update: of completions, and of references in a supervised term.",
    ),
    Metric("memory/peak_gb", "GB", "Highest memory MLX has held so far, in units of 1e9 bytes."),
    Metric(
        "eval/<benchmark>/<metric>",
        "as in `grpo eval`",
        "A number of a benchmark scored after this update (trainer.eval_every): accuracy, low, high, n, ...",
    ),
    Metric("time/eval_seconds", "s", "The benchmarks, when they were scored; not part of the update."),
    Metric("custom/<name>", "any", "Whatever a plugin reports."),
)


def refuse_unknown(names: Iterable[str]) -> None:
    """Raise TrainingError for a name that is not in the table, so that the table cannot fall behind."""
    for name in names:
        if not is_known(name):
            raise TrainingError(
                f"the metric {name!r} is not in the table of metrics{meant(name)}",
                hint=f"call a plugin's own metric custom/{name}; the table is pipelines/monitoring/names.py",
            )


def is_known(name: str) -> bool:
    """Whether a name is in the table, as it stands or through a part in angle brackets."""
    return name in _EXACT or any(pattern.fullmatch(name) for pattern in _PATTERNS)


def meant(name: str) -> str:
    """The name in the table that is most like one that is not, as the end of a sentence."""
    near = difflib.get_close_matches(name, [metric.name for metric in METRICS], n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


_EXACT = frozenset(metric.name for metric in METRICS if "<" not in metric.name)
_PATTERNS = tuple(metric.pattern for metric in METRICS if "<" in metric.name)


def markdown() -> str:
    """The text of docs/metrics.md."""
    rows = [f"| `{metric.name}` | {metric.unit} | {metric.meaning} |" for metric in METRICS]
    return "\n".join([*_HEAD, *rows, ""])


_HEAD = (
    "# Metrics",
    "",
    "Every line of `metrics.jsonl` is one JSON object with the fields `step` (the update, from 1), `time` (seconds",
    "since 1970) and the metrics below. A value that is not finite is null; a metric that does not apply to a run is",
    "absent. Names are TRL's where TRL has one.",
    "",
    "<!-- Written by `python -m pipelines.monitoring.names`; edit the table there. -->",
    "",
    "| metric | unit | meaning |",
    "|---|---|---|",
)

if __name__ == "__main__":
    DOCUMENT.write_text(markdown(), encoding="utf-8")
    sys.stderr.write(f"wrote {DOCUMENT}\n")
