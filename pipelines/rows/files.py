"""Which files a data section reads: known before anything is read."""

from collections.abc import Sequence
from pathlib import Path

from pipelines.config import DataConfig
from pipelines.config.checks import LOADERS
from pipelines.errors import DataError
from pipelines.rows.loaders.base import about
from pipelines.rows.loaders.registry import loader_for


def data_files(data: DataConfig, plugins: Sequence[str] = ()) -> dict[str, dict[str, Path]]:
    """For `train_path` and `val_path` the files behind it, by a name that does not depend on the place.

    Absent where no file decides the rows (generated ones, a commit on the hub), empty where only a plugin knows what
    the words mean. `DataError` if a path leads nowhere. `plugins` are imported for a loader that is not one of ours:
    its answer must not depend on who imported what before.
    """
    loader = loader_for(data, plugins)
    found: dict[str, dict[str, Path] | None] = {}
    for origin, path in loader.sources().items():
        with about(origin):
            found[f"{origin}_path"] = loader.files(path)
    for key, files in found.items():
        if files == {} and data.loader_type in LOADERS:
            given = getattr(data, key) or data.train_path
            raise DataError(f"data.{key}: there is nothing at {given}", hint=f"relative paths start at {Path.cwd()}")
    return {key: files for key, files in found.items() if files is not None}
