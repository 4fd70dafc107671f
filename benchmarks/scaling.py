"""How cost and memory grow: rows, completion length, vocabulary, layers and the data set, each by itself.

What is held against growth is a unit: a token, or a token of one layer or of 1,000 logits, for so much is unavoidable.
The laws, for N rows of P + C tokens, L layers and V logits:

    rollout  seconds a token   a + b L + c V, and attention's share, which grows with P + C; less with more rows
             memory            caches, N (P + C) L, and some arrays N V
    update   seconds a token   a + b L + c V, and attention's share
             memory            of one micro-batch: once it is full the same for every N and C; it grows with L, and
                               with V until the logits that exist at a time do
    data     seconds a prompt  the same for every number of rows
             memory            16 bytes a row while an epoch's order is drawn, 8 afterwards

So each column of ratios falls or stays at 1. A line is marked `!` where a unit costs more than 1.3 times the least that
it cost with less. Seconds are those of a processor on a CPU, where OPENBLAS_NUM_THREADS=1 gives the steadiest figures.
LoRA, so that memory is that of activations and not of gradients.

    python benchmarks/scaling.py [--repeat 2] [--only rows length vocabulary layers data]
"""

import argparse
import gc
import os
import statistics
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from pipelines import backend

backend.prepare()

import mlx.core as mx  # noqa: E402 - after the fast BLAS
import numpy as np  # noqa: E402
from shapes import random_llama  # noqa: E402

from pipelines.algorithms.grpo import Grpo  # noqa: E402
from pipelines.config import GenerationConfig, ModelConfig, TrainerConfig  # noqa: E402
from pipelines.generation.engine import generate  # noqa: E402
from pipelines.generation.seeds import row_keys  # noqa: E402
from pipelines.models.lora import apply_lora  # noqa: E402
from pipelines.rows.records import Row  # noqa: E402
from pipelines.tokens.dataset import SplitWriter, TokenDataset  # noqa: E402
from pipelines.tokens.order import PromptCursor  # noqa: E402
from pipelines.training.assembly import make_updater  # noqa: E402
from pipelines.training.sequences import Sequences  # noqa: E402

FLAT = 1.3
PROMPT_TOKENS, GROUP = 32, 4
MICRO_BATCH_TOKENS = 768
"""Full from 8 rows of 32 + 64 tokens on."""

clock = time.perf_counter if backend.on_gpu() else time.process_time

AXES = {
    "rows": [8, 16, 32, 64],
    "length": [32, 64, 128, 256],
    "vocabulary": [4096, 8192, 16_384, 32_768],
    "layers": [2, 4, 8, 16],
}
UNITS = {
    "rows": "a token; MB in all",
    "length": "a token; MB in all",
    "vocabulary": "a token and 1,000 logits; MB a 1,000 logits",
    "layers": "a token and layer; MB a layer",
}
DATA_ROWS = (1000, 10_000, 100_000)


@dataclass(frozen=True)
class Shape:
    """N rows of C tokens, by a llama of width 256."""

    rows: int = 16
    length: int = 64
    vocabulary: int = 4096
    layers: int = 4

    def units(self, axis: str) -> float:
        """How much of the unavoidable there is, tokens aside."""
        return {"vocabulary": self.vocabulary / 1000, "layers": self.layers}.get(axis, 1)


@dataclass(frozen=True)
class Cost:
    """What one call took."""

    seconds: float
    bytes: int


def cheapest(call: Callable[[], object], repeat: int) -> Cost:
    """Seconds of the fastest call after a first one, and the most memory above what stood before."""
    call()
    seconds, most = [], 0
    for _ in range(repeat):
        gc.collect()
        mx.clear_cache()
        mx.reset_peak_memory()
        before, started = mx.get_active_memory(), clock()
        call()
        seconds.append(clock() - started)
        most = max(most, mx.get_peak_memory() - before)
    return Cost(min(seconds), most)


def rollout(model, shape: Shape) -> Callable[[], object]:
    """All rows to their last token: no end token is known."""
    rng = np.random.default_rng(0)
    prompts = [rng.integers(0, shape.vocabulary, PROMPT_TOKENS).astype(np.int32) for _ in range(shape.rows // GROUP)]
    seeds = row_keys(0, "benchmark", 0, range(len(prompts)), GROUP)
    return lambda: generate(
        model,
        prompts,
        group_size=GROUP,
        sampling=GenerationConfig(),
        eos_ids=frozenset(),
        max_tokens=shape.length,
        seeds=seeds,
    )


def update(model, shape: Shape) -> Callable[[], object]:
    """One optimizer step on rows of that shape."""
    apply_lora(model, ModelConfig(use_lora=True, lora_rank=8), 0)
    rng = np.random.default_rng(0)
    rows = Sequences(
        prompts=[rng.integers(0, shape.vocabulary, PROMPT_TOKENS) for _ in range(shape.rows)],
        completions=[rng.integers(0, shape.vocabulary, shape.length) for _ in range(shape.rows)],
        advantages=rng.normal(0, 1, shape.rows).astype(np.float32),
        silent=np.zeros(shape.rows, bool),
    )
    updater = make_updater(
        model,
        Grpo(TrainerConfig(learning_rate=1e-3)),
        None,
        full_finetuning=False,
        temperature=1.0,
        micro_batch_tokens=MICRO_BATCH_TOKENS,
        budget_tokens=shape.length,
    )
    return lambda: updater.update(rows)


def measured(shape: Shape, repeat: int) -> tuple[Cost, Cost]:
    """Rollout and update of one point."""
    model = random_llama(
        hidden_size=256,
        intermediate_size=704,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_hidden_layers=shape.layers,
        vocab_size=shape.vocabulary,
    )
    return cheapest(rollout(model, shape), repeat), cheapest(update(model, shape), repeat)


class Table:
    """Lines of values, each with its ratio to that of the first line."""

    def __init__(self, columns: Sequence[str]) -> None:
        self.columns = columns
        self.least = [float("inf")] * len(columns)
        self.first: Sequence[float] = ()

    def head(self, axis: str) -> str:
        """What the columns are."""
        return f"{axis:>10}" + "".join(f"{column:>16}     x " for column in self.columns)

    def line(self, size: int, values: Sequence[float]) -> str:
        """One size of what grows."""
        self.first = self.first or values
        cells = [
            f"{value:16,.2f} {value / first:5.2f}{'!' if value > FLAT * least else ' '}"
            for value, first, least in zip(values, self.first, self.least, strict=True)
        ]
        self.least = [min(pair) for pair in zip(values, self.least, strict=True)]
        return f"{size:10,}" + "".join(cells)


def model_lines(axis: str, repeat: int) -> Iterator[str]:
    """The table of one axis."""
    table = Table(["rollout us", "rollout kB", "update us", "update MB"])
    yield UNITS[axis]
    yield table.head(axis)
    for size in AXES[axis]:
        shape = replace(Shape(), **{axis: size})
        decoded, updated = measured(shape, repeat)
        sampled, held = shape.rows * shape.length, shape.rows * (PROMPT_TOKENS + shape.length)
        costs = (
            1e6 * decoded.seconds / sampled,
            1e-3 * decoded.bytes / held,
            1e6 * updated.seconds / sampled,
            1e-6 * updated.bytes,
        )
        yield table.line(size, [cost / shape.units(axis) for cost in costs])


def data_lines(repeat: int) -> Iterator[str]:
    """What it takes to know which prompts come next, and to read them."""
    table = Table(["prompt us", "row bytes"])
    yield "a prompt, drawn and read for an update of 64; memory a row"
    yield table.head("data")
    for rows in DATA_ROWS:
        with tempfile.TemporaryDirectory() as place:
            with closing(SplitWriter(Path(place), "train", np.dtype(np.uint16))) as writer:
                for number in range(rows):
                    row = Row(prompt=f"What is {number} + {number}?", completion=f"{2 * number}")
                    writer.append(row, range(PROMPT_TOKENS), range(4), preopened=False)
            yield table.line(rows, read(Path(place), repeat))


def read(place: Path, repeat: int) -> tuple[float, float]:
    """Microseconds a prompt and bytes a row, of everything in a step that knows of the data set."""
    tracemalloc.start()
    dataset = TokenDataset(place, "train")
    cursor = PromptCursor(len(dataset), 0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    seconds = []
    for _ in range(8 * repeat):
        started = clock()
        for index in cursor.next(64).tolist():
            dataset.prompt_tokens(index)
            dataset.row(index)
            dataset.preopened(index)
        seconds.append(clock() - started)
    return 1e6 * statistics.median(seconds) / 64, peak / len(dataset)


def main() -> None:
    """Print a table for each axis."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--only", nargs="+", choices=[*AXES, "data"], default=[*AXES, "data"])
    chosen = parser.parse_args()
    base = Shape()
    sys.stdout.write(
        f"{base.rows} rows x {PROMPT_TOKENS} + {base.length} tokens, {base.vocabulary:,} logits, {base.layers} layers"
        f" of width 256, {mx.default_device()}, {clock.__name__}, load {os.getloadavg()[0]:.1f}\n"
    )
    for axis in chosen.only:
        for line in data_lines(chosen.repeat) if axis == "data" else model_lines(axis, chosen.repeat):
            sys.stdout.write(f"{line}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
