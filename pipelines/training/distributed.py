"""Several processes that train one model: who does what of an update, and how it is put together again.

`mlx.launch -n K grpo train` starts K processes, the ranks. The prompts of an update are dealt out, completed and scored
where they are, and what was found is gathered, so that every rank knows all N rows: advantages, dropped groups and
denominators are those of one process with the same prompts. Then the micro-batches are dealt out and their gradients
added up, and all ranks take the same optimizer step. Rank 0 alone draws the seed, evaluates and writes files; the
others are told.

MLX's own back ends (ring, MPI, NCCL, JACCL) carry everything, as numbers and JSON. Light: MLX and numpy are imported
inside the functions, so that a command can ask which rank it is.
"""

import io
import json
import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from pipelines.errors import TrainingError

if TYPE_CHECKING:
    import mlx.core as mx
    import numpy as np

RANK_VARIABLES = ("MLX_RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK")
"""How `mlx.launch`, Open MPI and MPICH tell a process its number."""

TORN = "what they sent arrived in pieces"

Arrays = dict[str, "np.ndarray"]
T = TypeVar("T")


def launched() -> int | None:
    """The number of this process among those that it was launched with; None if it was started by itself."""
    found = next((os.environ[name] for name in RANK_VARIABLES if name in os.environ), "")
    return int(found) if found.isdecimal() else None


class Ranks:
    """All processes of a run, seen from one of them; without a group this one is alone, and nothing is sent.

    Every rank must call the same methods in the same order. TrainingError where another rank has ended.
    """

    def __init__(self, group: "mx.distributed.Group | None" = None) -> None:
        self.rank = 0 if group is None else group.rank()
        self.size = 1 if group is None else group.size()
        self._group = group

    @property
    def leads(self) -> bool:
        """Whether this is the rank that writes."""
        return self.rank == 0

    def part(self, items: Sequence[T]) -> list[T]:
        """The share of this rank, in order: those of rank 0 stand before those of rank 1."""
        bounds = [len(items) * rank // self.size for rank in (self.rank, self.rank + 1)]
        return list(items[bounds[0] : bounds[1]])

    def dealt(self, items: Sequence[T]) -> list[T]:
        """The share of this rank, in turns: of items in order of size everybody gets large and small ones."""
        return list(items[self.rank :: self.size])

    def told(self, data: T) -> T:
        """Rank 0's data, on every rank; plain JSON."""
        return self.gathered(data)[0]

    def gathered(self, data: T) -> list[T]:
        """The data of all ranks, in their order; plain JSON."""
        return [data] if self.size == 1 else [found for _, found in self.gathered_arrays({}, data)]

    def gathered_arrays(self, arrays: Arrays, data: T) -> list[tuple[Arrays, T]]:
        """Arrays by name, with plain JSON beside them, of all ranks, in their order."""
        return [_unpacked(payload) for payload in self._exchanged(_packed(arrays, data))]

    def added(self, gradients: "Mapping[str, mx.array]") -> "dict[str, mx.array]":
        """The sum over ranks, leaf by leaf; a rank that lacks a leaf adds nothing to it."""
        if self.size == 1:
            return dict(gradients)
        import mlx.core as mx
        from mlx.nn.utils import average_gradients

        shapes: dict[str, list[int]] = {}
        for found in self.gathered({name: list(leaf.shape) for name, leaf in gradients.items()}):
            shapes |= found
        if not shapes:
            return {}
        own = [gradients[name] if name in gradients else mx.zeros(shapes[name]) for name in sorted(shapes)]

        def add() -> list[mx.array]:
            summed = [leaf * self.size for leaf in average_gradients(own, self._group)]
            mx.eval(summed)
            return summed

        summed = _heard(add)
        self.gathered(None)  # a ring that breaks in the middle of a sum says so at the next exchange only
        return dict(zip(sorted(shapes), summed, strict=True))

    def _exchanged(self, payload: bytes) -> list[bytes]:
        """The bytes of all ranks, as they were sent: a ring that breaks may leave anything in their place."""
        import mlx.core as mx
        import numpy as np

        def gather(values: np.ndarray) -> np.ndarray:
            shared = mx.distributed.all_gather(mx.array(values[None]), group=self._group)
            return np.array(shared).reshape(self.size, -1)

        def exchange() -> list[bytes]:
            size, digest = len(payload), zlib.crc32(payload)
            sizes, digests, either = gather(np.array([size, digest, ~(size ^ digest)], np.int64)).T
            if (~(sizes ^ digests) != either).any():
                raise RuntimeError(TORN)
            padded = np.zeros(max(1, int(sizes.max())), np.uint8)
            padded[:size] = np.frombuffer(payload, np.uint8)
            found = [row[:count].tobytes() for row, count in zip(gather(padded), sizes, strict=True)]
            if [zlib.crc32(each) for each in found] != digests.tolist() or found[self.rank] != payload:
                raise RuntimeError(TORN)
            return found

        return [payload] if self.size == 1 else _heard(exchange)


ALONE = Ranks()
"""Of a process that was started by itself."""


@cache
def join() -> Ranks:
    """The ranks that this process was started with; it alone if it was started by itself. Waits for the others."""
    if launched() is None:
        return ALONE
    from pipelines import backend  # before MLX: it brings the fast BLAS

    backend.prepare()
    import mlx.core as mx

    group = _heard(lambda: mx.distributed.init(backend=_back_end()))
    return Ranks(group) if group.size() > 1 else ALONE


def _back_end() -> str:
    """The one that was launched; MLX knows the others of `any` by themselves."""
    told = {"NCCL_HOST_IP": "nccl", "MLX_JACCL_COORDINATOR": "jaccl"}
    return next((name for variable, name in told.items() if variable in os.environ), "any")


def _heard(talk: Callable[[], T]) -> T:
    try:
        return talk()
    except RuntimeError as error:
        raise TrainingError(
            f"the other ranks of this run cannot be reached any more: {error}",
            hint="one that fails says why before this; start all again, and the run goes on from its last checkpoint",
        ) from error


def _packed(arrays: Arrays, data: Any) -> bytes:
    import numpy as np

    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, data=np.frombuffer(json.dumps(data).encode(), np.uint8), **_prefixed(arrays))
    return buffer.getvalue()


def _prefixed(arrays: Arrays) -> Arrays:
    return {f"array.{name}": values for name, values in arrays.items()}


def _unpacked(payload: bytes) -> tuple[Arrays, Any]:
    import numpy as np

    with np.load(io.BytesIO(payload), allow_pickle=False) as found:
        arrays = {name.removeprefix("array."): found[name] for name in found.files if name != "data"}
        return arrays, json.loads(found["data"].tobytes())
