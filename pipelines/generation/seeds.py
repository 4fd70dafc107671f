"""Random keys that depend on what a sample is, never on what shares its batch."""

import hashlib
from collections.abc import Sequence

import numpy as np


def row_key(seed: int, purpose: str, step: int, prompt: int, sample: int) -> tuple[int, int]:
    """Two uint32 words from sha256 of (seed, purpose, step, prompt, sample): an MLX key."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{step}/{prompt}/{sample}".encode()).digest()
    return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:8], "little")


def row_keys(seed: int, purpose: str, step: int, prompts: Sequence[int], group_size: int) -> np.ndarray:
    """Keys of B x G rows, group by group; uint32 `[N, 2]`."""
    keys = [row_key(seed, purpose, step, int(p), g) for p in prompts for g in range(group_size)]
    return np.array(keys, dtype=np.uint32).reshape(-1, 2)
