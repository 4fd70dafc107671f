"""A private view of the file system: the standard library read-only, an empty writable /tmp, nothing else.

Paths stay what they are outside, so that an interpreter in a directory closed to others goes on finding its library.
"""

import ctypes
import os
import sys
import sysconfig
from pathlib import Path

from pipelines.sandbox import kernel

MOUNT_POINTS = ("/sys", "/mnt", "/srv", "/media", "/opt", "/var", "/run", "/tmp")  # noqa: S108 - covered, not written
SCRATCH = "/tmp"  # noqa: S108 - of the view, private and in memory
DEVICES = ("/dev/null", "/dev/urandom")
SYSTEM = ("/usr/lib", "/usr/lib64", "/lib", "/lib64", "/nix/store", "/etc/ld.so.cache", "/usr/share/zoneinfo")
INODES = 4096
KEPT_FLAGS = ((os.ST_NOSUID, kernel.MS_NOSUID), (os.ST_NODEV, kernel.MS_NODEV), (os.ST_NOEXEC, kernel.MS_NOEXEC))
HERE = ctypes.create_string_buffer(b".")


def readable() -> list[str]:
    """What an import of the standard library may read: Python's own directories and shared libraries."""
    paths = sysconfig.get_paths(vars={"base": sys.base_prefix, "platbase": sys.base_exec_prefix})
    own = [str(Path(os.__file__).parent), paths["stdlib"], paths["platstdlib"], *filter(None, sys.path)]
    found: list[str] = []
    for path in sorted({str(Path(path).absolute()) for path in (*own, *_shared_libraries(), *SYSTEM)}):
        if Path(path).exists() and not any(path.startswith(f"{above}/") for above in found):
            found.append(path)
    return found


def enter(sources: list[str], scratch_mb: int) -> None:
    """Make the view and move into it. Needs a mount namespace of its own; OSError if a step is not allowed."""
    kernel.mount("", "/", "", kernel.MS_REC | kernel.MS_PRIVATE)
    os.umask(0o022)
    root = next(place for place in MOUNT_POINTS if _free(place, sources))
    flags = kernel.MS_NOSUID | kernel.MS_NODEV
    kernel.mount("tmpfs", root, "tmpfs", flags, f"size=1m,nr_inodes={INODES},mode=755")
    Path(root + SCRATCH).mkdir()
    options = f"size={scratch_mb}m,nr_inodes={INODES},mode=777"
    kernel.mount("tmpfs", root + SCRATCH, "tmpfs", flags | kernel.MS_NOEXEC, options)
    for source in (*sources, *DEVICES):  # after the scratch directory, since an interpreter may lie in its place
        _show(root, source)
    os.chdir(root)
    kernel.syscall(kernel.PIVOT_ROOT, ctypes.addressof(HERE), ctypes.addressof(HERE))
    kernel.detach(".")
    kernel.mount("", "/", "", kernel.MS_REMOUNT | kernel.MS_BIND | kernel.MS_RDONLY | flags)
    os.chdir(SCRATCH)
    os.umask(0o077)


def _show(root: str, source: str) -> None:
    """Bring one file or tree into the view, read-only; a link stays a link."""
    target = Path(root + source)
    target.parent.mkdir(parents=True, exist_ok=True)
    if Path(source).is_symlink():
        target.symlink_to(Path(source).readlink())
        return
    if Path(source).is_dir():
        target.mkdir()
    else:
        target.touch()
    kernel.mount(source, str(target), "", kernel.MS_BIND | kernel.MS_REC)
    if source not in DEVICES:
        kept = os.statvfs(target).f_flag
        locked = sum(flag for have, flag in KEPT_FLAGS if kept & have)
        wanted = locked | kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_RDONLY
        kernel.mount("", str(target), "", kernel.MS_REMOUNT | kernel.MS_BIND | wanted)


def _free(place: str, sources: list[str]) -> bool:
    """Whether a directory may be covered: no source lies in it or leads through it."""
    real = (f"{os.path.realpath(source)}/" for source in sources)
    return Path(place).is_dir() and not any(source.startswith(f"{place}/") for source in real)


def _shared_libraries() -> list[str]:
    """Directories of the shared libraries that this process has loaded, wherever they are installed."""
    try:
        lines = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    paths = [line.split(maxsplit=5)[-1] for line in lines if ".so" in line]
    return [str(Path(path).parent) for path in paths if path.startswith("/")]
