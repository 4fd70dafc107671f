"""The machine under the run: fast BLAS, device, seed and compute type.

Importing this module loads the fast BLAS, so it must come before the first `import mlx.core`. The rooms that use MLX
import it in their `__init__`; it is light itself, for MLX is imported only inside its functions.
"""

import os
import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pipelines import blas

if TYPE_CHECKING:
    import mlx.core as mx

MOST_THREADS = 8
"""What is taken unasked. On 2 cores, 2 threads instead of 1 double a 1024x128x384 product (174 against 80 GFLOP/s),
make a tiny model's training step 1.3 times as fast and leave its decoding as it was; more than 8 is unmeasured."""

FAST_GFLOPS = 15.0
"""Above it a BLAS is an optimised one: the reference BLAS gives 4 whatever the number of cores."""


def usable_cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# OpenBLAS reads it once, while it is loaded. A user's own value stays.
os.environ.setdefault("OPENBLAS_NUM_THREADS", str(min(usable_cores(), MOST_THREADS)))
BLAS = blas.preload()
"""Path of the BLAS that was put before MLX's own; None where MLX brings a fast one (macOS) or none was found."""


@dataclass(frozen=True)
class Backend:
    """What a run computes on."""

    device: Literal["cpu", "gpu"]
    blas: str | None
    threads: int
    """Of the BLAS; only a CPU uses them."""
    compute_dtype: Literal["float32", "as stored"]


def _threads() -> int:
    chosen = os.environ.get("OPENBLAS_NUM_THREADS", "")
    return int(chosen) if chosen.isdecimal() else usable_cores()


def prepare(seed: int | None = None) -> Backend:
    """Choose the device, a GPU if there is one, and seed MLX's default generator.

    The seed serves what has no key of its own, such as the first adapter weights.
    """
    import mlx.core as mx

    on_gpu = mx.is_available(mx.gpu)
    mx.set_default_device(mx.gpu if on_gpu else mx.cpu)
    if seed is not None:
        mx.random.seed(seed)
    return Backend(
        device="gpu" if on_gpu else "cpu",
        blas=BLAS,
        threads=_threads(),
        compute_dtype="as stored" if on_gpu else "float32",
    )


def busy() -> str | None:
    """A warning where other work takes the cores: BLAS threads then wait for each other, several times as long."""
    load, cores = os.getloadavg()[0], usable_cores()
    if BLAS is None or _threads() == 1 or load < cores:
        return None
    return f"the machine is busy (load {load:.1f} on {cores} cores): OPENBLAS_NUM_THREADS=1 may be much faster"


def compute_dtype(stored: "mx.Dtype") -> "mx.Dtype":
    """The type to compute in: float32 on a CPU, whose 16-bit products are ten times slower; else as stored."""
    import mlx.core as mx

    return mx.float32 if mx.default_device() == mx.Device(mx.cpu) else stored


def blas_gflops(size: int = 768, repeats: int = 5) -> float:
    """The best of some square float32 products on the CPU, in 1e9 multiplications and additions a second."""
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


def memory_bytes() -> int:
    """The memory a run can use: the GPU's where MLX reports it (`memory_size`), else the machine's."""
    import mlx.core as mx

    reported = mx.device_info(mx.default_device()).get("memory_size", 0)
    return int(reported) or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
