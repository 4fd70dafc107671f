"""Which rows ask the same: duplicates inside a split, and leakage between training and validation."""

from array import array

import numpy as np

from pipelines.rows.records import Row
from pipelines.rows.sources import fingerprint


class Fingerprints:
    """64 bits of each row that is kept, in order: 8 MB for a million rows."""

    def __init__(self) -> None:
        self._of: dict[str, array[int]] = {"train": array("Q"), "val": array("Q")}

    def add(self, split: str, row: Row) -> None:
        """Remember one row of a split."""
        self._of[split].append(fingerprint(row))

    def duplicates(self, split: str) -> int:
        """Rows that ask what an earlier row of the split asks."""
        found = self._array(split)
        return len(found) - len(np.unique(found))

    def leaked(self) -> np.ndarray:
        """Indices of the validation rows whose problem is a training row's too."""
        return np.flatnonzero(np.isin(self._array("val"), self._array("train")))

    def index_of(self, split: str, like: str, index: int) -> int:
        """The first row of `split` that asks what row `index` of the split `like` asks."""
        return int(np.flatnonzero(self._array(split) == self._of[like][index])[0])

    def _array(self, split: str) -> np.ndarray:
        return np.array(self._of[split], dtype=np.uint64)
