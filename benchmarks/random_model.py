"""A model directory of random weights: config and tokenizer of another one, whose weights need not be there.

Speed and memory depend on the shape alone, and an untrained model hardly ever ends a completion. Llamas only.

    python benchmarks/random_model.py FROM TO
"""

import json
import shutil
import sys
from pathlib import Path

import mlx.core as mx
from mlx_lm.models.llama import Model, ModelArgs  # noqa: TID253 - for scripts, which are started for this

from pipelines.models.leaves import leaves

DEVIATION = 0.02
"""`initializer_range` of a llama in transformers."""


def write(source: Path, target: Path, seed: int = 0) -> None:
    """Matrices from a normal distribution, norms of 1, in bfloat16."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.safetensors*"), dirs_exist_ok=True)
    model = Model(ModelArgs.from_dict(json.loads((source / "config.json").read_text(encoding="utf-8"))))
    mx.random.seed(seed)
    weights = {
        name: (mx.ones(leaf.shape) if leaf.ndim == 1 else DEVIATION * mx.random.normal(leaf.shape)).astype(mx.bfloat16)
        for name, leaf in leaves(model.parameters()).items()
    }
    mx.save_safetensors(str(target / "model.safetensors"), weights, metadata={"format": "pt"})


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(sys.argv[2]))
