"""Which rows ask the same: duplicates inside a split, and leakage between training and validation."""

import numpy as np


class Fingerprints:
    """64 bits of each row that is kept, in order: 8 MB for a million rows."""

    def __init__(self) -> None:
        self._parts: dict[str, list[np.ndarray]] = {"train": [], "val": []}

    def add(self, split: str, fingerprints: np.ndarray) -> None:
        """Remember further rows of a split, uint64."""
        self._parts[split].append(fingerprints)

    def duplicates(self, split: str) -> int:
        """Rows that ask what an earlier row of the split asks."""
        found = self._array(split)
        return len(found) - len(np.unique(found))

    def leaked(self) -> np.ndarray:
        """Indices of the validation rows whose problem is a training row's too."""
        return np.flatnonzero(np.isin(self._array("val"), self._array("train")))

    def index_of(self, split: str, like: str, index: int) -> int:
        """The first row of `split` that asks what row `index` of the split `like` asks."""
        return int(np.flatnonzero(self._array(split) == self._array(like)[index])[0])

    def _array(self, split: str) -> np.ndarray:
        """All of a split, put together once."""
        whole = np.concatenate([np.empty(0, np.uint64), *self._parts[split]])
        self._parts[split] = [whole]
        return whole
