"""A fast BLAS for MLX on Linux: OpenBLAS enters the process before `mlx.core` does.

The Linux wheel of MLX links the reference BLAS (a few GFLOP/s). A library with the same symbols, loaded first and
globally, takes its place. PyPI's OpenBLAS (`cmeel-openblas`) wants the system's `libgfortran.so.5`, which a minimal
machine lacks; MLX's own wheel carries that runtime under another name, so it is given the wanted one in memory.
"""

import ctypes
import os
import sys
from importlib.util import find_spec
from pathlib import Path

WANTED_RUNTIME = b"libgfortran.so.5"


def preload() -> str | None:
    """Load OpenBLAS for everything that comes after; the path of the library, or None where there is none.

    Must run before the first `import mlx.core`. Does nothing off Linux, where MLX brings a fast BLAS.
    """
    library = _openblas()
    if library is None:
        return None
    if not _loads(library) and not (_provide_fortran_runtime() and _loads(library)):
        return None  # `doctor` measures which BLAS is live, and says so
    return str(library)


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


def _provide_fortran_runtime() -> bool:
    """Load the Fortran runtime inside MLX's wheel under the name OpenBLAS asks for; False if it is not there."""
    spec = find_spec("mlx")
    for package in [] if spec is None else spec.submodule_search_locations or []:
        bundle = Path(package).parent / "mlx_cpu.libs"
        runtimes = sorted(bundle.glob("libgfortran-*.so*"))
        if not runtimes:
            continue
        for quadmath in bundle.glob("libquadmath-*.so*"):
            ctypes.CDLL(str(quadmath), mode=ctypes.RTLD_GLOBAL)
        _load_renamed(runtimes[0])
        return True
    return False


def _load_renamed(runtime: Path) -> None:
    """dlopen a copy of the library whose SONAME, the string by which others find it, is the wanted one."""
    own_name = runtime.name.encode() + b"\0"
    image = runtime.read_bytes().replace(own_name, WANTED_RUNTIME.ljust(len(own_name), b"\0"))
    descriptor = os.memfd_create("libgfortran")
    try:
        os.write(descriptor, image)
        ctypes.CDLL(f"/proc/self/fd/{descriptor}", mode=ctypes.RTLD_GLOBAL)
    finally:
        os.close(descriptor)
