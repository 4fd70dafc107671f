"""What can be told about a configuration without running it: everything that names a file, a model or a plugin too.

`grpo config check` lists it all. Nothing is downloaded and nothing written; plugins are imported.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from pipelines.config import DataConfig, EvaluationConfig, ExperimentConfig, check_layer_ranges
from pipelines.config.checks import LOADERS
from pipelines.config.examination import Examination, examine
from pipelines.errors import ConfigError, GrpoError
from pipelines.hub import NotHereError, looking, would_download
from pipelines.models.locate import is_hub_name, local_model, model_directory, num_layers
from pipelines.plugins import load_plugins
from pipelines.rewards import RewardRegistry
from pipelines.rows.files import data_files
from pipelines.rows.loaders.base import about
from pipelines.rows.loaders.registry import loader_for
from pipelines.rows.sources import ReadReport, usable

Found = Iterator[GrpoError | str]
Given = TypeVar("Given")


def preflight(files: Sequence[Path | str], overrides: Sequence[str], environ: Mapping[str, str]) -> Examination:
    """All problems and warnings of a configuration; imports what the configuration's plugins register."""
    examination = examine(files, overrides, environ)
    config = examination.config
    if config is not None:
        for look in (_named, _model, _data, _benchmarks):
            for found in look(config):
                examination.add(found)
    return examination


def _named(config: ExperimentConfig) -> Found:
    """What plugins can register: rewards and benchmarks with their settings, the algorithm; and trackers."""
    from pipelines.evaluation.registry import EvaluatorRegistry
    from pipelines.monitoring.trackers import require_packages
    from pipelines.training import algorithms

    failed = [*_raised(load_plugins, config.plugin_files)]
    yield from failed
    yield from _raised(require_packages, config.monitoring)
    if not failed:  # what is unknown may be what the plugin would have registered
        yield from _raised(algorithms.create, config.trainer)
    for index, entry in enumerate(config.rewards):
        if not failed or entry.name in RewardRegistry.names():
            yield from _settings(RewardRegistry.create, entry.name, entry.config, f"rewards[{index}]")
    for index, entry in enumerate(config.evaluation):
        if not failed or entry.name in EvaluatorRegistry.names():
            yield from _settings(EvaluatorRegistry.create, entry.name, entry.config, f"evaluation[{index}]")


def _settings(create: Callable[..., object], name: str, config: Mapping[str, Any], where: str) -> Found:
    """Each wrong setting of one reward or benchmark: told, taken out, and the rest tried again."""
    left = dict(config)
    while True:
        errors = [*_raised(lambda: create(name, left, where=where))]
        yield from errors
        cause = errors[0].__cause__ if errors else None
        wrong = cause.errors()[0]["loc"][:1] if isinstance(cause, ValidationError) else ()
        if not wrong or wrong[0] not in left:
            return
        del left[str(wrong[0])]


def _model(config: ExperimentConfig) -> Found:
    """The models' directories, and the layer ranges against the depth of the one that learns."""
    for key in ("model_path", "ref_model_path"):
        path: str | None = getattr(config.model, key)
        directory = None if path is None else local_model(path)
        if path is None or (key == "ref_model_path" and config.trainer.grpo_beta == 0):
            continue
        if directory is None and Path(path).expanduser().is_dir():
            yield from _raised(model_directory, path)
        elif directory is None and is_hub_name(path):
            yield f"model.{key}: {would_download(path)}"
        elif directory is None:
            yield ConfigError(f"model.{key}: no model directory at {path}", hint=f"paths start at {Path.cwd()}")
        elif key == "model_path":
            yield from _layers(config, num_layers(directory))


def _layers(config: ExperimentConfig, depth: int | None) -> Found:
    try:
        yield from check_layer_ranges(config, depth) if depth is not None else ()
    except ConfigError as error:
        yield error


def _data(config: ExperimentConfig) -> Found:
    """Files that rows would be read from, and the first row of each; of what a plugin reads only the files."""
    ours = config.data.loader_type in LOADERS
    downloads = [f"data.hf_name: {words}" for words in loader_for(config.data).downloads()] if ours else []
    missing = [*_missing(config)]
    yield from (*downloads, *missing)
    if ours and not downloads and not missing:
        yield from _first_rows(config.data)


def _missing(config: ExperimentConfig) -> Iterator[GrpoError]:
    """A missing training file does not hide a missing validation file."""
    yield from _raised(data_files, config.data.model_copy(update={"val_path": None}))
    if config.data.val_path is not None:
        train = {"train_path": config.data.val_path, "val_path": None, "hf_name": None}
        for error in _raised(data_files, config.data.model_copy(update=train)):
            yield type(error)(error.message.replace("data.train_path", "data.val_path", 1), hint=error.hint)


def _first_rows(data: DataConfig) -> Found:
    """What is wrong with the first record of a source: most of what is wrong with a file is wrong there already."""
    loader = loader_for(data)
    strict = data.model_copy(update={"on_bad_row": "error"})

    def look(origin: str, path: str) -> None:
        with about(origin):
            loader.check(path)
            for chunk in islice(loader.cut(path), 1):
                next(usable(loader.rows(chunk), strict, ReadReport()), None)

    for origin, path in loader.sources().items():
        for error in _raised(look, origin, path):
            yield error if data.on_bad_row == "error" else f"{error.message}; such rows are skipped"


def _benchmarks(config: ExperimentConfig) -> Found:
    """Files of benchmarks, and data sets of the hub that would become such files."""
    for index, entry in enumerate(config.evaluation):
        where = f"evaluation.{index}"
        for error in _raised(_benchmark_files, entry, where):
            if isinstance(error, NotHereError):
                yield f"{where}: {error.message}"
            elif not isinstance(error, ConfigError):  # a setting, and told as one
                yield type(error)(f"{where}.config: {error.message}", hint=error.hint)


@looking()
def _benchmark_files(entry: EvaluationConfig, where: str) -> None:
    from pipelines.evaluation.registry import EvaluatorRegistry

    EvaluatorRegistry.create(entry.name, entry.config, where=where).files()


def _raised(look: Callable[..., object], *arguments: object) -> Iterable[GrpoError]:
    try:
        look(*arguments)
    except GrpoError as error:
        return [error]
    return []
