"""Which files make a model or a tokenizer what it is: everything that loading reads, and nothing else."""

from collections.abc import Iterable
from pathlib import Path

from pipelines.errors import ModelError

CONFIG_FILE = "config.json"
"""Also decides which tokenizer class reads the tokenizer's files."""
TOKENIZER_PATTERNS = (
    "tokenizer*.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template*",
    "vocab.*",
    "merges.txt",
    "*.tiktoken",
)
MODEL_PATTERNS = (CONFIG_FILE, "generation_config.json", "adapter_config.json", "*.safetensors", *TOKENIZER_PATTERNS)
OPTIMIZER_FILE = "optimizer.safetensors"
"""Lies beside the weights of a checkpoint and changes nothing that the model says."""


def tokenizer_files(directory: Path) -> dict[str, Path]:
    """The files that decide how text becomes tokens, by name; `ModelError` if there are none."""
    found = _matching(directory, TOKENIZER_PATTERNS)
    if not found:
        message = f"model.model_path: {directory} holds no tokenizer"
        raise ModelError(message, hint="give the directory of a complete model")
    return found | _matching(directory, (CONFIG_FILE,))


def model_files(directory: Path) -> dict[str, Path]:
    """Weights, architecture and tokenizer of a model, a checkpoint or an adapter; `ModelError` without weights."""
    found = _matching(directory, MODEL_PATTERNS)
    if not any(name.endswith(".safetensors") for name in found):
        raise ModelError(f"{directory} holds no weights", hint="a model directory has *.safetensors files")
    return found


def _matching(directory: Path, patterns: Iterable[str]) -> dict[str, Path]:
    found = {path.name: path for pattern in patterns for path in directory.glob(pattern) if path.is_file()}
    found.pop(OPTIMIZER_FILE, None)
    return found
