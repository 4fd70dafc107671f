"""Which files a data section reads: known before anything is read, and without importing a reader."""

from pathlib import Path

from pipelines.bundled import BUILTIN, bundled
from pipelines.config import DataConfig
from pipelines.config.checks import LOADERS
from pipelines.errors import DataError


def data_files(data: DataConfig) -> dict[str, dict[str, Path]]:
    """For `train_path` and `val_path` the files behind it, by a name that does not depend on the place.

    Absent where the loader reads no path (generated rows, rows from the hub), empty where only a plugin knows.
    `DataError` if a path leads nowhere.
    """
    given = {"train_path": data.train_path, "val_path": data.val_path}
    if data.loader_type == "synthetic":
        return {}
    if data.loader_type == "hf" and data.hf_name is not None:
        given["train_path"] = data.hf_name if Path(data.hf_name).expanduser().exists() else None
    return {key: _behind(data.loader_type, key, text) for key, text in given.items() if text is not None}


def _behind(loader: str, key: str, given: str) -> dict[str, Path]:
    path = Path(given).expanduser()
    if given.startswith(BUILTIN):
        found = _below(bundled(given.removeprefix(BUILTIN)), "*.jsonl")
    elif path.is_file():
        found = {path.suffix: path}  # the ending says how to read it
    elif path.is_dir():
        found = _below(path, "*")
    elif loader == "npy":  # a prefix of several arrays
        found = {file.name.removeprefix(path.name): file for file in path.parent.glob(f"{path.name}_*")}
    else:
        found = {}
    if not found and loader in LOADERS:
        raise DataError(f"data.{key}: there is nothing at {given}", hint=f"relative paths start at {Path.cwd()}")
    return found


def _below(directory: Path, pattern: str) -> dict[str, Path]:
    files = (path for path in sorted(directory.rglob(pattern)) if path.is_file())
    return {path.relative_to(directory).as_posix(): path for path in files}
