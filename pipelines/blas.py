"""A fast BLAS for MLX on Linux: OpenBLAS enters the process before `mlx.core` does.

The Linux wheel of MLX links the reference BLAS (a few GFLOP/s). A library with the same symbols, loaded first and
globally, takes its place. PyPI's OpenBLAS (`cmeel-openblas`) wants the system's `libgfortran.so.5`, which a minimal
machine lacks; MLX's own wheel carries that runtime under another name, so it is given the wanted one in memory. Its
x86 build is for AVX-512 alone; on other x86 processors it is passed over, and MLX's slow BLAS stays.
"""

import ctypes
import os
import platform
import sys
from importlib.util import find_spec
from pathlib import Path

WANTED_RUNTIME = b"libgfortran.so.5"

ONLY_FOR = {b"\0SKYLAKEX\0": "avx512vl"}
"""What is found in a library that was built for one kind of processor: the instructions that it cannot do without."""


def preload() -> str | None:
    """Load OpenBLAS for everything that comes after; the path of the library, or None where none can be used.

    Must run before the first `import mlx.core`. Does nothing off Linux, where MLX brings a fast BLAS.
    """
    library = _openblas()
    if library is None or not _runs_here(library):
        return None
    if not _loads(library) and not (_provide_fortran_runtime() and _loads(library)):
        return None  # `doctor` measures which BLAS is live, and says so
    return str(library)


def threads(library: str) -> int:
    """How many threads a product in the OpenBLAS of `preload` uses."""
    return ctypes.CDLL(library).openblas_get_num_threads()


def set_threads(library: str, count: int) -> None:
    """Use so many from the next product on; a library that was built for fewer takes as many as it can."""
    ctypes.CDLL(library).openblas_set_num_threads(count)


def _loads(library: Path) -> bool:
    try:
        ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    except OSError:
        return False
    return True


def _openblas() -> Path | None:
    if sys.platform != "linux":
        return None
    spec = find_spec("cmeel")
    roots = [] if spec is None or spec.origin is None else [Path(spec.origin).parent.parent]
    for root in [*roots, *map(Path, sys.path)]:
        library = root / "cmeel.prefix" / "lib" / "libopenblas.so"
        if library.is_file():
            return library
    return None


def _runs_here(library: Path) -> bool:
    """Whether this processor has the library's instructions: without them the first product would end the process."""
    flags = _processor_flags()
    missing = [name for name, wanted in ONLY_FOR.items() if wanted not in flags]
    if platform.machine() != "x86_64" or not missing:
        return True
    image = library.read_bytes()
    return not any(name in image for name in missing)


def _processor_flags() -> set[str]:
    with Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as stream:
        return set(next((line for line in stream if line.startswith("flags")), "").split())


def _provide_fortran_runtime() -> bool:
    """Load the Fortran runtime inside MLX's wheel under the name OpenBLAS asks for; False where that cannot be."""
    spec = find_spec("mlx")
    for package in [] if spec is None else spec.submodule_search_locations or []:
        bundle = Path(package).parent / "mlx_cpu.libs"
        runtimes = sorted(bundle.glob("libgfortran-*.so*"))
        if not runtimes:
            continue
        try:
            for quadmath in bundle.glob("libquadmath-*.so*"):
                ctypes.CDLL(str(quadmath), mode=ctypes.RTLD_GLOBAL)
            _load_renamed(runtimes[0])
        except OSError:
            return False
        return True
    return False


def _load_renamed(runtime: Path) -> None:
    """dlopen a copy of the library whose SONAME, the string by which others find it, is the wanted one.

    OSError if the copy cannot be made whole, as under a limit on the size of files: half a library is a bus error.
    """
    own_name = runtime.name.encode() + b"\0"
    image = runtime.read_bytes().replace(own_name, WANTED_RUNTIME.ljust(len(own_name), b"\0"))
    with os.fdopen(os.memfd_create("libgfortran"), "wb") as copy:
        copy.write(image)
        copy.flush()
        ctypes.CDLL(f"/proc/self/fd/{copy.fileno()}", mode=ctypes.RTLD_GLOBAL)
