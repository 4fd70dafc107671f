"""What a dual update costs beside a plain one: same model, same rows, same process, one after the other.

32 layers with the ranges 18-30 (thinking) and 24-32 (answer, clipped to 31): two backward passes, of which the second
begins where the first has been. The ratio of the medians is the figure; below 1.0 a dual update is the cheaper one.

    python benchmarks/dual_gradients.py [--hidden 256] [--rows 8] [--tokens 96] [--updates 5]
"""

import argparse
import statistics
import sys
import time

from pipelines import backend

backend.prepare()

import mlx.core as mx  # noqa: E402 - after the fast BLAS
import numpy as np  # noqa: E402
from mlx.utils import tree_map  # noqa: E402
from mlx_lm.models.llama import Model, ModelArgs  # noqa: E402, TID253 - a script, started for this

from pipelines.algorithms.grpo import Grpo  # noqa: E402
from pipelines.config import TrainerConfig  # noqa: E402
from pipelines.training.assembly import make_updater  # noqa: E402
from pipelines.training.sequences import Sequences  # noqa: E402

LAYERS, PROMPT_TOKENS = 32, 16
DUAL = {
    "use_dual_gradients": True,
    "thinking_layer_start": 18,
    "thinking_layer_end": 30,
    "answer_layer_start": 24,
    "answer_layer_end": 32,
}


def make_model(hidden: int, vocabulary: int) -> Model:
    """A llama of random weights."""
    heads = max(1, hidden // 64)
    model = Model(
        ModelArgs(
            model_type="llama",
            hidden_size=hidden,
            num_hidden_layers=LAYERS,
            intermediate_size=8 * hidden // 3,
            num_attention_heads=heads,
            num_key_value_heads=heads,
            rms_norm_eps=1e-5,
            vocab_size=vocabulary,
            tie_word_embeddings=True,
        )
    )
    dtype = backend.compute_dtype(mx.bfloat16)
    model.update(tree_map(lambda leaf: leaf.astype(dtype), model.parameters()))
    model.eval()
    return model


def make_rows(rows: int, tokens: int, vocabulary: int) -> Sequences:
    """Completions of one length whose first two thirds are thinking."""
    rng = np.random.default_rng(0)
    return Sequences(
        prompts=[rng.integers(0, vocabulary, PROMPT_TOKENS) for _ in range(rows)],
        completions=[rng.integers(0, vocabulary, tokens) for _ in range(rows)],
        advantages=rng.normal(0, 1, rows).astype(np.float32),
        silent=np.zeros(rows, bool),
        thinking=np.full(rows, 2 * tokens // 3),
    )


def main() -> None:
    """Print seconds and ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("hidden", 256), ("vocabulary", 8192), ("rows", 8), ("tokens", 96), ("updates", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    chosen = parser.parse_args()
    rows = make_rows(chosen.rows, chosen.tokens, chosen.vocabulary)
    updaters = {
        name: make_updater(
            make_model(chosen.hidden, chosen.vocabulary),
            Grpo(TrainerConfig(learning_rate=1e-6, **settings)),
            None,
            full_finetuning=True,
            temperature=1.0,
            micro_batch_tokens=chosen.rows * (PROMPT_TOKENS + chosen.tokens),
            budget_tokens=chosen.tokens,
        )
        for name, settings in (("plain", {}), ("dual", DUAL))
    }
    seconds: dict[str, list[float]] = {name: [] for name in updaters}
    for number in range(chosen.updates + 2):
        for name, updater in updaters.items():
            started = time.perf_counter()
            updater.update(rows)
            if number > 1:  # the first ones compile kernels and run the self-check
                seconds[name].append(time.perf_counter() - started)
    median = {name: statistics.median(found) for name, found in seconds.items()}
    what = f"{LAYERS} layers of width {chosen.hidden}, {chosen.rows} x {chosen.tokens} completion tokens"
    lines = [f"{name:6} {median[name]:8.3f} s an update, {min(seconds[name]):.3f} at best" for name in median]
    sys.stdout.write("\n".join([f"{what}, {mx.default_device()}", *lines]))
    sys.stdout.write(f"\nratio  {median['dual'] / median['plain']:8.2f}  dual / plain\n")


if __name__ == "__main__":
    main()
