"""What decides each stage's output: its part of the configuration, and the content of what it reads.

`RECIPES` is the whole truth about the configuration: a stage is keyed by the sections and keys it names, less those
that change nothing about the result (places, memory, cadence of logs). Data, models and plugins are keyed by content,
and a later stage by what the earlier one *wrote*: an upstream rerun with the same output runs nothing again.
"""

import os
import stat
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from pipelines.config import ExperimentConfig
from pipelines.config.checks import LOADERS
from pipelines.errors import ConfigError, StageError
from pipelines.evaluation.targets import newest_checkpoint, step_of
from pipelines.files import at_home
from pipelines.hub import NotHereError, looking
from pipelines.installed import packages_behind_answers, packages_behind_rows
from pipelines.models.files import model_files, tokenizer_files
from pipelines.models.locate import model_directory
from pipelines.rows.files import data_files
from pipelines.rows.loaders.registry import loader_for
from pipelines.stages import digest, store
from pipelines.stages.digest import DigestCache
from pipelines.stages.identity import IDENTITY_FILE, Identity, digest_of
from pipelines.stages.store import StageState

PIPELINE = ("preprocess", "train")
ASKED_STAGES = ("eval", "sample", "inspect-rewards")
"""What happens only if somebody asks for it, as often as they like."""

STAGES = (*PIPELINE, *ASKED_STAGES)
"""In pipeline order."""

WAITS = "waits for preprocess"
FILE = "file."
"""Prefix of the inputs that are files of a request."""


class WaitsError(StageError):
    """Nobody can tell, or begin, before preprocess is complete."""


@dataclass(frozen=True)
class Recipe:
    """The part of the configuration that decides a stage's output.

    `version` is raised by hand when a stage would write something else from the same inputs. `keys` are dotted
    sections or fields; `without` are those below them that change nothing about the result.
    """

    version: int
    keys: tuple[str, ...]
    without: tuple[str, ...] = ()


ANSWERED_WITH = ("generation", "data.max_gen_len", "trainer.seed", "model.quantize_bits")
"""The settings behind every answer of a model."""

RECIPES = {
    "preprocess": Recipe(
        version=1,
        keys=("data", "generation.think_start_tag", "generation.think_end_tag"),
        # Paths are keyed by content; the other two are read when training.
        without=("data.train_path", "data.val_path", "data.shuffle_data", "data.max_gen_len"),
    ),
    "train": Recipe(
        version=2,
        keys=("trainer", "model", "generation", "rewards", "data.shuffle_data", "data.max_gen_len"),
        without=(
            "trainer.output_dir",
            "trainer.micro_batch_tokens",
            "trainer.grad_checkpoint",
            "trainer.eval_every",
            "trainer.abort_after_dead_updates",
            "model.model_path",
            "model.ref_model_path",
            "generation.rollout_batch_size",
        ),
    ),
    "eval": Recipe(version=3, keys=ANSWERED_WITH, without=("generation.rollout_batch_size",)),
    "sample": Recipe(version=4, keys=(*ANSWERED_WITH, "rewards"), without=("generation.rollout_batch_size",)),
    "inspect-rewards": Recipe(version=5, keys=(*ANSWERED_WITH, "rewards"), without=("generation.rollout_batch_size",)),
}
"""`checkpointing`, `monitoring`, `paths` and `evaluation` (but for the benchmark that is scored) are in no key."""

# Identities, one function a stage.


def preprocess_identity(config: ExperimentConfig, cache: DigestCache | None = None) -> Identity:
    """Keyed by the rows' content, the tokenizer's files and how rows become prompts."""
    with _remembering(config, cache) as known:
        inputs = _data(config, known)
        inputs |= _tokenizer(config, known) | packages_behind_rows(config.data)
        if config.data.loader_type not in LOADERS:
            inputs |= _plugins(config.plugins, known)
    return _identity("preprocess", config, inputs)


def train_identity(
    config: ExperimentConfig, cache: DigestCache | None = None, *, tokens: str | None = None
) -> Identity:
    """Keyed by the tokens preprocess wrote, the weights, the plugins; `StageError` while preprocess is not complete.

    `tokens` stands for the digest of these tokens, where somebody wants to know what else would be different.
    """
    with _remembering(config, cache) as known:
        inputs = _preprocessed(config, known) if tokens is None else {"preprocess": tokens}
        inputs |= _plugins(config.plugin_files, known) | packages_behind_answers(config)
        inputs["model"] = _model(config.model.model_path, known)
        if config.model.ref_model_path is not None and config.trainer.grpo_beta != 0:
            inputs["ref_model"] = _model(config.model.ref_model_path, known, "model.ref_model_path")
    return _identity("train", config, inputs, _early_stop(config))


def run_goes_on(config: ExperimentConfig) -> store.GoesOn:
    """For `train`: a run becomes one with another number of updates as long as it has not passed that.

    No update depends on how many there will be, so the run is then what it would have been with that number.
    """

    def goes_on(old: Identity, new: Identity) -> bool:
        length = old.config.get("trainer", {}).get("num_training_steps")
        as_long = {**new.config, "trainer": {**new.config["trainer"], "num_training_steps": length}}
        if replace(new, config=as_long) != old:
            return False
        newest = newest_checkpoint(Path(config.trainer.output_dir) / config.checkpointing.checkpoint_dir)
        return newest is None or step_of(newest) <= config.trainer.num_training_steps

    return goes_on


def _early_stop(config: ExperimentConfig) -> dict[str, Any]:
    """What decides when a run ends before its last update; evaluations change nothing else about it."""
    if not config.trainer.early_stop_after:
        return {}
    metric, mode = config.checkpointing.best_metric, config.checkpointing.best_mode
    benchmarks = [entry.model_dump(mode="json") for entry in config.evaluation]
    return {"early_stop": {"every": config.trainer.eval_every, "by": [metric, mode], "evaluation": benchmarks}}


def asked_identity(
    stage: str,
    config: ExperimentConfig,
    checkpoint: Path | None = None,
    *,
    benchmark: str = "",
    request: Mapping[str, Any] | None = None,
    files: Mapping[str, Path] | None = None,
    rows: bool = True,
    weights: bool = True,
    also: Sequence[str] = (),
    cache: DigestCache | None = None,
) -> Identity:
    """eval, sample or inspect-rewards: keyed by what is asked, and by the content of the checkpoint that answers.

    A checkpoint of None is the model that training starts from. `request` is what the command line adds, `files` what
    it gives to read. Without `rows` none of the data set are read, without `weights` only a tokenizer. `also` are
    dotted keys that decide the result of this request, beside those of `RECIPES`. `StageError` while preprocess, which
    makes the rows, is not complete.
    """
    asked: dict[str, Any] = {"request": dict(request or {})}
    if benchmark:
        settings = next((entry.config for entry in config.evaluation if entry.name == benchmark), {})
        asked["benchmark"] = {"name": benchmark, "config": settings}
    with _remembering(config, cache) as known:
        inputs = {f"{FILE}{name}": digest.of_file(path, known) for name, path in (files or {}).items()}
        inputs |= _plugins(config.plugin_files, known) | packages_behind_answers(config, benchmark)
        inputs |= _weights(config, checkpoint, known) if weights else _tokenizer(config, known)
        if rows:
            inputs |= _preprocessed(config, known)
    return _identity(stage, config, inputs, asked, also)


def asked_again(
    config: ExperimentConfig,
    old: Identity,
    checkpoint: Path | None,
    *,
    files: Mapping[str, Path] | None = None,
    cache: DigestCache | None = None,
) -> Identity:
    """What an old request would be today, of this checkpoint; files it was given count as unchanged if not given."""
    now = asked_identity(
        old.stage,
        config,
        checkpoint,
        benchmark=old.config.get("benchmark", {}).get("name", ""),
        request=old.config.get("request", {}),
        files=files,
        rows="preprocess" in old.inputs,
        weights="tokenizer" not in old.inputs,
        also=_beside_recipe(config, old),
        cache=cache,
    )
    given = {name: sha256 for name, sha256 in old.inputs.items() if name.startswith(FILE)}
    return replace(now, inputs={**given, **now.inputs})


def _beside_recipe(config: ExperimentConfig, old: Identity) -> list[str]:
    """The keys, `section` or `section.key`, that an old request was keyed by beside those of its recipe."""
    keys, found = RECIPES[old.stage].keys, list[str]()
    for name, value in old.config.items():
        section = getattr(config, name, None)
        if isinstance(value, dict):
            found += [f"{name}.{key}" for key in cast("dict[str, Any]", value) if hasattr(section, key)]
        elif section is not None:
            found.append(name)
    return [key for key in found if key not in keys and key.partition(".")[0] not in keys]


def _identity(
    stage: str,
    config: ExperimentConfig,
    inputs: dict[str, str],
    asked: dict[str, Any] | None = None,
    also: Sequence[str] = (),
) -> Identity:
    recipe = RECIPES[stage]
    settings = config.model_dump(mode="json")
    if stage in ASKED_STAGES:
        settings["trainer"]["seed"] = config.trainer.evaluation_seed
    part = chosen(settings, (*recipe.keys, *also), recipe.without)
    return Identity(stage, recipe.version, {**part, **(asked or {})}, inputs)


def chosen(settings: dict[str, Any], keys: tuple[str, ...], without: tuple[str, ...] = ()) -> dict[str, Any]:
    """The dotted `keys` of nested settings, less the dotted keys `without`; a key that does not exist is a bug."""
    part: dict[str, Any] = {}
    for key in keys:
        *sections, name = key.split(".")
        inner, source = part, settings
        for section in sections:
            inner, source = inner.setdefault(section, {}), source[section]
        value = source[name]
        inner[name] = dict(value) if isinstance(value, dict) else value
    for key in without:
        *sections, name = key.split(".")
        inner = part
        for section in sections:
            inner = inner[section]
        del inner[name]
    return part


@contextmanager
def _remembering(config: ExperimentConfig, cache: DigestCache | None) -> Generator[DigestCache]:
    """The given cache of digests, or the store's own, saved at the end."""
    if cache is not None:
        yield cache
        return
    own = DigestCache(Path(config.paths.stages))
    yield own
    own.save()


def _preprocessed(config: ExperimentConfig, cache: DigestCache) -> dict[str, str]:
    directory = stage_directory(config, "preprocess", preprocess_identity(config, cache))
    outputs = store.outputs_digest(directory)
    if outputs is None:
        raise WaitsError(WAITS, hint="run `grpo preprocess` with the same configuration first")
    return {"preprocess": outputs}


def _data(config: ExperimentConfig, cache: DigestCache) -> dict[str, str]:
    """Content where there are files, the words of the configuration where only a plugin knows what they mean."""
    found = data_files(config.data, config.plugins).items()
    return {
        key.replace("_path", "_data"): digest.of_tree(files, cache) if files else digest_of(getattr(config.data, key))
        for key, files in found
    }


def _model(model_path: str, cache: DigestCache, key: str = "model.model_path") -> str:
    return digest.of_tree(model_files(model_directory(model_path, key=key)), cache)


def _tokenizer(config: ExperimentConfig, cache: DigestCache) -> dict[str, str]:
    return {"tokenizer": digest.of_tree(tokenizer_files(model_directory(config.model.model_path)), cache)}


def _plugins(files: Sequence[str], cache: DigestCache) -> dict[str, str]:
    """One digest of the files' content in their order; nothing without files."""
    paths = {str(index): at_home(plugin) for index, plugin in enumerate(files)}
    for index, path in paths.items():
        if not path.is_file():
            raise ConfigError(f"plugins[{index}]: there is no file {path}", hint=f"paths start at {Path.cwd()}")
    return {"plugins": digest.of_tree(paths, cache)} if paths else {}


def _weights(config: ExperimentConfig, checkpoint: Path | None, cache: DigestCache) -> dict[str, str]:
    """What answers: a whole checkpoint, adapters and the model below them, or the model that training starts from."""
    inputs: dict[str, str] = {}
    if checkpoint is not None:
        inputs["checkpoint"] = digest.of_tree(model_files(checkpoint), cache)
    if checkpoint is None or (checkpoint / "adapters.safetensors").is_file():
        inputs["model"] = _model(config.model.model_path, cache)
    return inputs


# Where stages write, and what is there.


def stage_directory(config: ExperimentConfig, stage: str, identity: Identity) -> Path:
    """`trainer.output_dir` for train, an entry of the store for everything else."""
    if stage == "train":
        return Path(config.trainer.output_dir)
    return store.directory_for(config.paths.stages, identity)


def refuse_no_directory(key: str, path: str) -> None:
    """ConfigError if the path of a key leads to something that is no directory, or can be none."""
    try:
        usable = stat.S_ISDIR(Path(path).stat().st_mode)
    except FileNotFoundError:
        usable = True  # it will be made
    except OSError as error:
        raise ConfigError(f"{key}: {error.strerror}: {path[:80]}", hint="give another directory") from error
    if not usable:
        raise ConfigError(f"{key}: {path} is there, and no directory", hint="give another directory")


def look(
    config: ExperimentConfig,
    stage: str,
    identify: Callable[[DigestCache], Identity],
    *,
    cache: DigestCache | None = None,
    verify: bool = False,
) -> StageState:
    """What there is of a stage. Nothing is written, nothing is downloaded.

    Of one that reads what is still on the hub, or what preprocess has yet to write, that is the reason.
    """
    try:
        with looking():
            identity = identify(cache or DigestCache(Path(config.paths.stages)))
    except (NotHereError, WaitsError) as error:
        return blocked(config, stage, [error.message])
    goes_on = run_goes_on(config) if stage == "train" else store.never
    found = store.state(identity, stage_directory(config, stage, identity), verify=verify, goes_on=goes_on)
    if stage == "preprocess" and found.status not in ("cached", "running"):
        return replace(found, reasons=[*found.reasons, *loader_for(config.data, config.plugins).downloads()])
    return found


def blocked(config: ExperimentConfig, stage: str, reasons: list[str]) -> StageState:
    """A stage that cannot be told from what is here: `stale` if there is anything of it, else `missing`."""
    directory = Path(config.trainer.output_dir) if stage == "train" else Path(config.paths.stages) / stage
    if stage == "train":
        there = os.access(directory / IDENTITY_FILE, os.F_OK)  # False for a name that no file can have
    else:
        there = any(store.entries(directory.parent, stage))
    return StageState(stage, directory, "stale" if there else "missing", reasons)
