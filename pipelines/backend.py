"""The machine under the run: fast BLAS, device, seed and compute type.

Importing this module loads the fast BLAS, so it must come before the first `import mlx.core`. The rooms that use MLX
import it in their `__init__`; it is light itself, for MLX is imported only inside its functions.
"""

import logging
import os
import shutil
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from pipelines import blas

if TYPE_CHECKING:
    import mlx.core as mx

log = logging.getLogger(__name__)

MOST_THREADS = 8
"""No more are tried unless the user asks for more, which was never measured."""

MEASURING_SECONDS = 0.2
"""For all numbers of threads together."""

WORTH_MORE_THREADS = 0.9
"""More threads are used where they take at most this part of the time: fewer leave cores to other programs."""

TURNS_UNDER_WAY = 1
"""Pieces of work that a GPU has before it while the next is made ready. More made nothing faster on an H100, and took
more memory: updates of 1,024 rows 14 GB with three, 9 with one."""

FAST_GFLOPS = 15.0
"""Above it a BLAS is an optimised one: the reference BLAS gives 4 whatever the number of cores."""


def usable_cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


THREADS_ASKED = os.environ.get("OPENBLAS_NUM_THREADS", "")
"""The user's own number, which stays. OpenBLAS reads it once, while it is loaded, and ignores what is no number."""
os.environ.setdefault("OPENBLAS_NUM_THREADS", str(min(usable_cores(), MOST_THREADS)))
MLX_SETTINGS = {"MLX_ENABLE_TF32": "0", "MLX_ENABLE_CACHE_THRASHING_CHECK": "0"}
"""Environment variables of MLX's that are set unless the user sets them; MLX reads each when it first needs it.

Products of float32 numbers are not rounded to 10 bits, as they would be by tensor cores and Apple's from the M5 on, but
not alike in decoding and in training: the two would differ by more than rounding. And CUDA does not end a process whose
shapes keep changing, which has lost nothing but speed.
"""
for _name, _value in MLX_SETTINGS.items():
    os.environ.setdefault(_name, _value)
BLAS = blas.preload()
"""Path of the BLAS that was put before MLX's own; None where MLX brings a fast one (macOS) or none was found."""


@dataclass(frozen=True)
class Backend:
    """What a run computes on."""

    device: Literal["cpu", "gpu"]
    blas: str | None
    threads: int | None
    """Of OpenBLAS; None where the work is not its own: on a GPU, or with the BLAS that MLX brings."""
    compute_dtype: Literal["float32", "as stored"]


def prepare(seed: int | None = None) -> Backend:
    """Choose the device, a GPU if there is one, and the threads of a CPU's BLAS; seed MLX's default generator.

    The seed is for plugins and model code that draw without a key; the rooms here draw with keys of their own.
    """
    import mlx.core as mx

    on_gpu = mx.is_available(mx.gpu)
    mx.set_default_device(mx.gpu if on_gpu else mx.cpu)
    if seed is not None:
        mx.random.seed(seed)
    if BLAS is not None and (measured := thread_seconds()):
        blas.set_threads(BLAS, _fewest_fast(measured))
    return Backend(
        device="gpu" if on_gpu else "cpu",
        blas=BLAS,
        threads=threads(),
        compute_dtype="as stored" if on_gpu else "float32",
    )


def threads() -> int | None:
    """What `Backend.threads` is at this moment."""
    return None if BLAS is None or on_gpu() else blas.threads(BLAS)


@cache
def thread_seconds() -> dict[int, float]:
    """What some products took with 1, 2, 4 .. threads; empty where there is nothing to choose. Measured once.

    Where other work takes the cores, threads wait for each other: twice as many may then take fifty times as long. So
    the mean counts, in which every wait is felt, and more threads are not tried after a number that was no gain.
    """
    most = min(usable_cores(), MOST_THREADS)
    if BLAS is None or on_gpu() or most == 1 or THREADS_ASKED.isdecimal():
        return {}
    counts = sorted({*(2**n for n in range(most.bit_length())), most})
    found: dict[int, float] = {}
    for count in counts:
        blas.set_threads(BLAS, count)
        if blas.threads(BLAS) < count:
            break  # it was built for fewer
        found[count] = _product_seconds(MEASURING_SECONDS / len(counts))
        if found[count] > min(found.values()):
            break
    return found


def _product_seconds(limit: float) -> float:
    """The mean of some rounds of products as they occur when 8 rows are decoded, and when 256 tokens are trained on."""
    import mlx.core as mx

    weights, decoded, trained = (mx.full(shape, 0.5) for shape in ((576, 1536), (8, 576), (256, 576)))
    mx.eval(weights, decoded, trained)
    rounds: list[float] = []
    begun = time.perf_counter()
    while not rounds or time.perf_counter() - begun < limit:
        started = time.perf_counter()
        mx.eval(*(decoded @ weights for _ in range(4)), trained @ weights)
        rounds.append(time.perf_counter() - started)
    warm = rounds[1:] or rounds  # the first one starts the threads
    return sum(warm) / len(warm)


def _fewest_fast(seconds: dict[int, float]) -> int:
    """From 1 on: each number that takes at most WORTH_MORE_THREADS of the time of the one chosen before it."""
    chosen = 1
    for count in sorted(seconds):
        if seconds[count] <= WORTH_MORE_THREADS * seconds[chosen]:
            chosen = count
    return chosen


def keep_threads(begun_with: int | None) -> None:
    """Go on with the threads that a run began with: the last bits of its gradients depend on whether they are several.

    Not where the user asks for another number, or the cores for it are missing: that is warned of.
    """
    now = threads()
    if begun_with is None or now is None or BLAS is None or begun_with == now:
        return
    if not THREADS_ASKED.isdecimal() and begun_with <= usable_cores():
        blas.set_threads(BLAS, begun_with)
        now = threads()
    if now != begun_with:
        log.warning(
            "the run began with %d BLAS threads and goes on with %d: from here on it is not the same run to the bit",
            begun_with,
            now,
        )


def busy() -> str | None:
    """A warning where other work takes the cores: BLAS threads then wait for each other, many times as long."""
    load, cores = os.getloadavg()[0], usable_cores()
    if threads() in (None, 1) or load < cores:
        return None
    return f"the machine is busy (load {load:.1f} on {cores} cores): OPENBLAS_NUM_THREADS=1 may be much faster"


def compute_dtype(stored: "mx.Dtype") -> "mx.Dtype":
    """The type to compute in: float32 on a CPU, whose 16-bit products are ten times slower; else as stored."""
    import mlx.core as mx

    return mx.float32 if mx.default_device() == mx.Device(mx.cpu) else stored


def blas_gflops(size: int = 768, repeats: int = 5) -> float:
    """The best of some square float32 products on the CPU, in 1e9 floating-point operations a second."""
    import mlx.core as mx

    best_seconds = float("inf")
    with mx.stream(mx.cpu):
        left, right = mx.random.normal((2, size, size))
        mx.eval(left, right)
        for _ in range(repeats + 1):  # the first one starts the threads
            started = time.perf_counter()
            mx.eval(left @ right)
            best_seconds = min(best_seconds, time.perf_counter() - started)
    return 2 * size**3 / best_seconds / 1e9


def compiler() -> str | None:
    """The C++ compiler that `mx.compile` calls on a CPU; without one MLX runs the same kernels one by one."""
    return shutil.which("g++")


def on_gpu() -> bool:
    """Whether MLX computes on a GPU."""
    import mlx.core as mx

    return mx.default_device().type == mx.DeviceType.gpu


def on_cuda() -> bool:
    """Whether that GPU is NVIDIA's: some of MLX's kernels are fast there for other shapes than on Metal."""
    import mlx.core as mx

    return on_gpu() and mx.cuda.is_available()


def compiled(function: Callable[..., Any], state: Any = None) -> Callable[..., Any]:
    """`mx.compile` on a GPU, where launching small kernels costs more than they do; the function itself on a CPU.

    `state` is a container of arrays that the function changes in place.
    """
    import mlx.core as mx

    if not on_gpu():
        return function
    return mx.compile(function) if state is None else mx.compile(function, inputs=state, outputs=state)


def launch(*arrays: Any) -> None:
    """Have arrays computed: a GPU begins and is not waited for, so that it is never idle; a CPU is, to save memory."""
    import mlx.core as mx

    (mx.async_eval if on_gpu() else mx.eval)(*arrays)


Launch = Callable[[list[Any]], None]
"""Told of arrays that are to be computed now."""


class Turns:
    """`launch` for one array after the other, of which a GPU has a few under way: memory is that of a few, too."""

    def __init__(self) -> None:
        self._under_way: deque[list[Any]] = deque()

    def __call__(self, arrays: list[Any]) -> None:
        """Begin with these, and wait for those of some turns ago."""
        import mlx.core as mx

        launch(arrays)
        if not on_gpu():
            return
        self._under_way.append(arrays)
        if len(self._under_way) > TURNS_UNDER_WAY:
            mx.eval(self._under_way.popleft())


def memory_bytes() -> int:
    """The memory a run can use: the GPU's, by either name that MLX gives it, else the machine's."""
    import mlx.core as mx

    info = mx.device_info(mx.default_device())
    reported = info.get("memory_size", 0) or info.get("total_memory", 0)  # Metal's name and CUDA's
    return int(reported) or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
