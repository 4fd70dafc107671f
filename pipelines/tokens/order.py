"""Which prompt comes next: every row once an epoch, in an order that only the seed and the epoch decide."""

import hashlib
from typing import Any

import numpy as np

from pipelines.errors import CheckpointError, DataError


def epoch_order(n: int, seed: int, epoch: int, shuffle: bool) -> np.ndarray:
    """A permutation of 0..n-1, int64; the identity without `shuffle`.

    Rows are sorted by random words of a Philox stream keyed by sha256(seed, epoch): its raw output is the same in
    every version of NumPy, so a run resumes in the same order years later.
    """
    if not shuffle:
        return np.arange(n, dtype=np.int64)
    digest = hashlib.sha256(f"epoch order:{seed}:{epoch}".encode()).digest()
    stream = np.random.Philox(key=int.from_bytes(digest[:16], "big"))
    return np.argsort(stream.random_raw(n), kind="stable").astype(np.int64)


class PromptCursor:
    """Walks over a data set of n rows, epoch after epoch; an update may span the end of one.

    Within an epoch nothing repeats. `state_dict` is plain JSON, and a cursor that loads it goes on exactly there.
    """

    def __init__(self, n: int, seed: int, shuffle: bool = True) -> None:
        if n < 1:
            raise DataError("there are no rows to draw prompts from", hint="look at what grpo preprocess dropped")
        self.n = n
        self.seed = seed
        self.shuffle = shuffle
        self.epoch = 0
        self.position = 0
        self._order = epoch_order(n, seed, 0, shuffle)

    def next(self, count: int) -> np.ndarray:
        """Indices of the next rows, int64 `[count]`."""
        parts: list[np.ndarray] = []
        while count:
            if self.position == self.n:
                self._turn_to(self.epoch + 1, 0)
            part = self._order[self.position : self.position + count]
            parts.append(part)
            self.position += len(part)
            count -= len(part)
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)

    def state_dict(self) -> dict[str, Any]:
        """Where the cursor is, and over what."""
        return {
            "epoch": self.epoch,
            "position": self.position,
            "rows": self.n,
            "seed": self.seed,
            "shuffle": self.shuffle,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go where another cursor over the same rows was; CheckpointError if its rows, seed or order differ."""
        here = self.state_dict()
        wrong = [name for name in ("rows", "seed", "shuffle") if state.get(name) != here[name]]
        if wrong:
            told = ", ".join(f"{name} {state.get(name)} -> {here[name]}" for name in wrong)
            raise CheckpointError(f"the data cursor was saved over other data: {told}", hint="start with --fresh")
        epoch, position = state.get("epoch"), state.get("position")
        if not isinstance(epoch, int) or not isinstance(position, int) or epoch < 0 or not 0 <= position <= self.n:
            raise CheckpointError(f"the data cursor cannot be at epoch {epoch}, row {position}", hint="it is damaged")
        self._turn_to(epoch, position)

    def _turn_to(self, epoch: int, position: int) -> None:
        if epoch != self.epoch:
            self._order = epoch_order(self.n, self.seed, epoch, self.shuffle)
        self.epoch, self.position = epoch, position
