"""The rows that wait until there is a place for them."""

from collections import deque
from collections.abc import Sequence

import numpy as np

from pipelines.generation.caches import Batching


class Waiting:
    """N = B x G rows, those of short prompts first: neighbours then need little padding.

    width: rows that decode side by side at most. may_share: which of them may.
    may_join: rows take the places of others that have ended, and need not wait until all of them have.
    """

    def __init__(
        self, prompts: Sequence[np.ndarray], group_size: int, width: int, may_share: Batching, *, may_join: bool
    ) -> None:
        lengths = np.repeat(np.array([len(prompt) for prompt in prompts], int), group_size)
        order = np.argsort(lengths, kind="stable")
        ends = np.flatnonzero(np.diff(lengths[order])) + 1 if may_share == "equal" else []
        self.width = 1 if may_share == "one" else width
        self.group_size = group_size
        self.may_join = may_join
        self._parts = deque(part for part in np.split(order, ends) if part.size)

    def __bool__(self) -> bool:
        return bool(self._parts)

    def take(self, taken: int) -> np.ndarray:
        """The rows that begin now, beside as many as have places taken; none if they wait.

        Beside others only whole groups begin, since the prompt of a group is computed once.
        """
        free = self.width - taken
        if not self._parts or (taken and (not self.may_join or free < self.group_size)):
            return np.zeros(0, int)
        if taken:
            free -= free % self.group_size
        part = self._parts.popleft()
        if part.size > free:
            self._parts.appendleft(part[free:])
        return part[:free]
