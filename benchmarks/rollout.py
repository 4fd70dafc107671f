"""Rollouts beside mlx-lm's batch generator and a bare decoding loop: same weights, same prompts, one run.

The bare loop is what a device can give: prompts of equal length, one cache, sampling, nothing recorded and nothing
looked at until the end. No end token is known to any of them, so all rows go on to the last token.

With --mean a completion ends after so many tokens on average, and with --width only so many decode at a time. Then ours
is also asked for one such batch after another, in which no row takes the place of another.

    python benchmarks/rollout.py [--prompts 8] [--group 4] [--tokens 64] [--repeat 3]
    python benchmarks/rollout.py --prompts 32 --width 32 --mean 24
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from pipelines import backend

backend.prepare()

import mlx.core as mx  # noqa: E402 - after the fast BLAS
import numpy as np  # noqa: E402
from mlx import nn  # noqa: E402
from mlx_lm.generate import BatchGenerator  # noqa: E402, TID253 - a script, started for this
from mlx_lm.models.cache import KVCache  # noqa: E402, TID253
from mlx_lm.sample_utils import make_sampler  # noqa: E402, TID253
from shapes import PROMPT_TOKENS, SMOLLM2_135M, random_llama  # noqa: E402

from pipelines.config import GenerationConfig  # noqa: E402
from pipelines.generation.engine import generate  # noqa: E402
from pipelines.generation.seeds import row_keys  # noqa: E402


@dataclass(frozen=True)
class Work:
    """What is asked of each way."""

    model: nn.Module
    prompts: list[np.ndarray]
    group: int
    tokens: int
    width: int
    ends: frozenset[int]


Way = Callable[[Work], int]
"""How many tokens it made."""


def ours(work: Work) -> int:
    """The engine, as training calls it."""
    seeds = row_keys(0, "benchmark", 0, range(len(work.prompts)), work.group)
    rollouts = generate(
        work.model,
        work.prompts,
        group_size=work.group,
        sampling=GenerationConfig(rollout_batch_size=work.width),
        eos_ids=work.ends,
        max_tokens=work.tokens,
        seeds=seeds,
    )
    return int(rollouts.lengths.sum())


def in_batches(work: Work) -> int:
    """The engine, asked for one batch after the other."""
    each = max(1, work.width // work.group)
    parts = [work.prompts[first : first + each] for first in range(0, len(work.prompts), each)]
    return sum(ours(replace(work, prompts=part)) for part in parts)


def batch_generator(work: Work) -> int:
    """`mlx_lm.batch_generate` without its tokenizer."""
    rows = [prompt.tolist() for prompt in work.prompts for _ in range(work.group)]
    generator = BatchGenerator(
        work.model,
        sampler=make_sampler(temp=1.0),
        stop_tokens=[[token] for token in sorted(work.ends)],
        completion_batch_size=work.width,
        prefill_batch_size=work.width,
    )
    generator.insert(rows, [work.tokens] * len(rows))
    made = 0
    while found := generator.next_generated():
        made += len(found)
    generator.close()
    return made


def bare_loop(work: Work) -> int:
    """One token after the other for all rows."""
    rows = mx.array(np.repeat(np.stack(work.prompts), work.group, axis=0))
    cache = [KVCache() for _ in work.model.layers]
    work.model(rows[:, :-1], cache=cache)
    token, drawn = rows[:, -1:], []
    for _ in range(work.tokens):
        logits = work.model(token, cache=cache)[:, -1]
        token = mx.random.categorical(logits)[:, None]
        mx.async_eval(token)
        drawn.append(token)
    mx.eval(drawn)
    return len(drawn) * rows.shape[0]


def asked() -> tuple[Work, int]:
    """What the command line asks for, and how often."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("prompts", 8), ("group", 4), ("tokens", 64), ("repeat", 3), ("layers", 30)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--width", type=int, help="rows at a time (all)")
    parser.add_argument("--mean", type=int, help="tokens after which a completion ends on average (never)")
    chosen = parser.parse_args()
    rng = np.random.default_rng(0)
    vocabulary = SMOLLM2_135M["vocab_size"]
    work = Work(
        model=random_llama(num_hidden_layers=chosen.layers),
        prompts=[rng.integers(0, vocabulary, PROMPT_TOKENS).astype(np.int32) for _ in range(chosen.prompts)],
        group=chosen.group,
        tokens=chosen.tokens,
        width=chosen.width or chosen.prompts * chosen.group,
        ends=frozenset(range(0, vocabulary, chosen.mean) if chosen.mean else ()),
    )
    return work, chosen.repeat


def main() -> None:
    """Print tokens per second, and ours over each."""
    work, repeat = asked()
    plain = not work.ends and work.width >= len(work.prompts) * work.group
    ways: dict[str, Way] = {"grpo": ours, "mlx-lm batch": batch_generator}
    ways |= {"bare loop": bare_loop} if plain else {"grpo, batches": in_batches}
    rates: dict[str, list[float]] = {name: [] for name in ways}
    peak: dict[str, float] = {}
    for number in range(repeat + 1):
        for name, way in ways.items():
            mx.clear_cache()
            mx.reset_peak_memory()
            started = time.perf_counter()
            made = way(work)
            if number:  # the first one compiles kernels
                rates[name].append(made / (time.perf_counter() - started))
            peak[name] = mx.get_peak_memory() / 1e9
    rate = {name: statistics.median(found) for name, found in rates.items()}
    lines = [
        f"{name:13} {rate[name]:10,.0f} tokens/s   {rate['grpo'] / rate[name]:6.2f}   {peak[name]:6.2f} GB"
        for name in ways
    ]
    rows = f"{len(work.prompts)} x {work.group} rows x {work.tokens} tokens, {mx.default_device()}"
    sys.stdout.write("\n".join([rows, "what                   speed       grpo / it      peak", *lines, ""]))


if __name__ == "__main__":
    main()
