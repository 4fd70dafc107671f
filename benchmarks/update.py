"""An update beside the least there is: a compiled cross-entropy step with Adam on the same tokens, in one run.

The bare step computes logits at every position, all rows at once, in one compiled function: what a supervised trainer
would do. Ours computes a policy loss at completion tokens, with log-probabilities in float32, in micro-batches, and the
prompt of a group once where it can (`--group 1`: every row has a prompt of its own).

    python benchmarks/update.py [--rows 8] [--group 4] [--tokens 64] [--repeat 3] [--lora] [--micro-batch-tokens N]
"""

import argparse
import statistics
import sys
import time
from functools import partial

from pipelines import backend

backend.prepare()

import mlx.core as mx  # noqa: E402 - after the fast BLAS
import numpy as np  # noqa: E402
from mlx import nn, optimizers  # noqa: E402
from shapes import PROMPT_TOKENS, random_llama  # noqa: E402

from pipelines.algorithms.grpo import Grpo  # noqa: E402
from pipelines.config import ModelConfig, TrainerConfig  # noqa: E402
from pipelines.models.lora import apply_lora  # noqa: E402
from pipelines.training.assembly import make_updater  # noqa: E402
from pipelines.training.sequences import Sequences  # noqa: E402

VOCABULARY = 49_152


WARM_UP = 3
"""The first updates compile kernels and are looked at by the self-check."""


def make_rows(rows: int, group: int, tokens: int) -> Sequences:
    """Completions of one length, `group` to a prompt."""
    rng = np.random.default_rng(0)
    prompts = [rng.integers(0, VOCABULARY, PROMPT_TOKENS) for _ in range(0, rows, group)]
    return Sequences(
        prompts=[prompts[row // group] for row in range(rows)],
        completions=[rng.integers(0, VOCABULARY, tokens) for _ in range(rows)],
        advantages=rng.normal(0, 1, rows).astype(np.float32),
        silent=np.zeros(rows, bool),
    )


def make_model(layers: int, lora: bool):
    """The model both learn."""
    model = random_llama(num_hidden_layers=layers)
    if lora:
        apply_lora(model, ModelConfig(use_lora=True, lora_rank=8), 0)
    return model


def bare_step(model, rows: Sequences):
    """A function that makes one supervised step on all rows."""
    tokens = mx.array(np.stack([np.concatenate(pair) for pair in zip(rows.prompts, rows.completions, strict=True)]))
    adam = optimizers.AdamW(learning_rate=1e-6)
    adam.init(model.trainable_parameters())
    state = [model.state, adam.state]

    def loss(model):
        logits = model(tokens[:, :-1])
        return nn.losses.cross_entropy(logits, tokens[:, 1:], reduction="mean")

    @partial(mx.compile, inputs=state, outputs=state)
    def step():
        value, gradients = nn.value_and_grad(model, loss)(model)
        adam.update(model, gradients)
        return value

    def run() -> None:
        mx.eval(step(), state)

    return run


def main() -> None:
    """Print tokens per second, the ratio and the memory of each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (
        ("rows", 8),
        ("group", 4),
        ("tokens", 64),
        ("repeat", 3),
        ("layers", 30),
        ("micro-batch-tokens", 0),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--lora", action="store_true")
    chosen = parser.parse_args()
    rows = make_rows(chosen.rows, chosen.group, chosen.tokens)
    model = make_model(chosen.layers, chosen.lora)
    updater = make_updater(
        model,
        Grpo(TrainerConfig(learning_rate=1e-3 if chosen.lora else 1e-6)),
        None,
        full_finetuning=not chosen.lora,
        temperature=1.0,
        micro_batch_tokens=chosen.micro_batch_tokens or "auto",
        budget_tokens=chosen.tokens,
    )
    ways = {"grpo": lambda: updater.update(rows), "bare": bare_step(make_model(chosen.layers, chosen.lora), rows)}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    peak: dict[str, float] = {}
    for number in range(chosen.repeat + WARM_UP):
        for name, way in ways.items():
            mx.clear_cache()
            mx.reset_peak_memory()
            before = mx.get_active_memory()
            started = time.perf_counter()
            way()
            if number >= WARM_UP:
                seconds[name].append(time.perf_counter() - started)
            peak[name] = (mx.get_peak_memory() - before) / 1e9
    total = chosen.rows * chosen.tokens
    rate = {name: total / statistics.median(found) for name, found in seconds.items()}
    lines = [
        f"{name:6} {statistics.median(seconds[name]):8.3f} s  {rate[name]:10,.0f} completion tokens/s"
        f"  {peak[name]:6.2f} GB above what stands"
        for name in ways
    ]
    sizes = f"{chosen.rows} rows of {PROMPT_TOKENS} + {chosen.tokens} tokens, {chosen.group} to a prompt"
    ratio = f"time of grpo / bare {rate['bare'] / rate['grpo']:.2f}, memory {peak['grpo'] / peak['bare']:.2f}"
    sys.stdout.write("\n".join([f"{sizes}, {mx.default_device()}", *lines, ratio, ""]))


if __name__ == "__main__":
    main()
