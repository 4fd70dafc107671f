"""From files, environment and `--set` to one checked configuration that knows where each value came from."""

import os
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from pipelines.config import fields
from pipelines.config.experiment import ExperimentConfig
from pipelines.config.problems import DEFAULT, config_error, located
from pipelines.config.remarks import remarks
from pipelines.config.values import leaves
from pipelines.errors import GrpoError

DEFAULT_FILE = Path("config.yaml")


@dataclass(frozen=True)
class Loaded:
    """A configuration, the origin of each value by dotted key, the files read, and what looks odd in it.

    An origin is `default`, `config.yaml:12`, `environment GRPO_TRAINER__SEED` or `--set`.
    """

    config: ExperimentConfig
    origins: dict[str, str]
    files: tuple[Path, ...]
    warnings: list[str]

    places: Mapping[fields.Path, str]
    """Where each value and section was written; defaults are not among them."""

    @contextmanager
    def placing(self) -> Generator[None]:
        """Inside the block an error whose message begins with a key is told with the place of that key."""
        try:
            yield
        except GrpoError as error:
            error.message = located(error, self.places).message
            raise


def load(files: Sequence[Path | str] | None = None, overrides: Sequence[str] | None = None) -> Loaded:
    """Defaults < files in order < GRPO_ variables < `--set`; without files, `config.yaml` if there is one.

    Raises ConfigError, with file, line and dotted key, for anything that cannot be used as written.
    """
    chosen = files or ([DEFAULT_FILE] if os.path.lexists(DEFAULT_FILE) else [])
    return resolve(chosen, overrides or [], os.environ)


def resolve(files: Sequence[Path | str], overrides: Sequence[str], environ: Mapping[str, str]) -> Loaded:
    """`load` with nothing implied: exactly these files, assignments and variables."""
    from pipelines.config import sources  # pydantic-settings takes longer to import than everything else here

    paths = tuple(Path(file) for file in files)
    merged = sources.merge(
        [
            *map(sources.FileSource, paths),
            *sources.environment_sources(environ),
            *map(sources.OverrideSource, overrides),
        ]
    )
    try:
        config = ExperimentConfig.model_validate(merged.value)
    except ValidationError as error:
        raise config_error(error, merged.origins) from error
    origins = {
        fields.dotted(path): merged.origins[path] if _holds(merged.value, path) else DEFAULT
        for path, _ in leaves(config.model_dump(mode="json"))
    }
    odd = remarks(config.trainer, config.model, config.generation, config.data)
    return Loaded(config, origins, paths, odd, merged.origins)


def _holds(value: Any, path: fields.Path) -> bool:
    for part in path:
        if isinstance(value, dict) and part in value:
            value = cast("dict[str | int, Any]", value)[part]
        elif isinstance(value, list) and isinstance(part, int) and part < len(cast("list[Any]", value)):
            value = cast("list[Any]", value)[part]
        else:
            return False
    return True
