"""What decides each stage's output: its part of the configuration, and the content of what it reads.

`RECIPES` is the whole truth about the configuration: a stage is keyed by the sections and keys it names, less those
that change nothing about the result (places, memory, cadence of logs). Data, models and plugins are keyed by content,
and a later stage by what the earlier one *wrote*: an upstream rerun with the same output runs nothing again.
"""

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipelines.config import ExperimentConfig
from pipelines.config.checks import LOADERS
from pipelines.errors import ConfigError, GrpoError, StageError
from pipelines.evaluation.targets import target
from pipelines.models.files import model_files, tokenizer_files
from pipelines.models.locate import model_directory
from pipelines.rows.files import data_files
from pipelines.stages import digest, locks, store
from pipelines.stages.digest import DigestCache
from pipelines.stages.explain import differences
from pipelines.stages.identity import IDENTITY_FILE, Identity, digest_of, read_identity
from pipelines.stages.store import StageState

STAGES = ("preprocess", "train", "eval", "sample", "inspect-rewards")
"""In pipeline order."""

WAITS = "waits for preprocess"
FILE = "file."
"""Prefix of the inputs that are files of a request."""


@dataclass(frozen=True)
class Recipe:
    """The part of the configuration that decides a stage's output.

    `version` is raised by hand when a stage would write something else from the same inputs. `keys` are dotted
    sections or fields; `without` are those below them that change nothing about the result.
    """

    version: int
    keys: tuple[str, ...]
    without: tuple[str, ...] = ()


RECIPES = {
    "preprocess": Recipe(
        version=1,
        keys=("data", "generation.think_start_tag", "generation.think_end_tag"),
        # Paths are keyed by content; the other two are read when training.
        without=("data.train_path", "data.val_path", "data.shuffle_data", "data.max_gen_len"),
    ),
    "train": Recipe(
        version=1,
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
    "eval": Recipe(
        version=1,
        keys=("generation", "data.max_gen_len", "trainer.seed", "model.quantize_bits"),
        without=("generation.rollout_batch_size",),
    ),
    "sample": Recipe(
        version=1,
        keys=("generation", "rewards", "data.max_gen_len", "trainer.seed", "model.quantize_bits"),
        without=("generation.rollout_batch_size",),
    ),
    "inspect-rewards": Recipe(
        version=1,
        keys=("generation", "rewards", "data.max_gen_len", "trainer.seed", "model.quantize_bits"),
        without=("generation.rollout_batch_size",),
    ),
}
"""`checkpointing`, `monitoring`, `paths` and `evaluation` (but for the benchmark that is scored) are in no key."""

# Identities, one function a stage.


def preprocess_identity(config: ExperimentConfig, cache: DigestCache | None = None) -> Identity:
    """Keyed by the rows' content, the tokenizer's files and how rows become prompts."""
    with _remembering(config, cache) as known:
        inputs = _data(config, known)
        inputs["tokenizer"] = digest.of_tree(tokenizer_files(model_directory(config.model.model_path)), known)
        if config.data.loader_type not in LOADERS:
            inputs |= _plugins(config, known)
    return _identity("preprocess", config, inputs)


def train_identity(config: ExperimentConfig, cache: DigestCache | None = None) -> Identity:
    """Keyed by the tokens preprocess wrote, the weights, the plugins; `StageError` while preprocess is not complete."""
    with _remembering(config, cache) as known:
        return _train_identity(config, _preprocessed(config, known), known)


def _train_identity(config: ExperimentConfig, preprocessed: dict[str, str], cache: DigestCache) -> Identity:
    inputs = {**preprocessed, **_plugins(config, cache)}
    inputs["model"] = _model(config.model.model_path, cache)
    if config.model.ref_model_path is not None and config.trainer.grpo_beta != 0:
        inputs["ref_model"] = _model(config.model.ref_model_path, cache)
    return _identity("train", config, inputs)


def eval_identity(
    config: ExperimentConfig,
    checkpoint: Path | None = None,
    benchmark: str = "exact_match",
    *,
    request: Mapping[str, Any] | None = None,
    files: Mapping[str, Path] | None = None,
    cache: DigestCache | None = None,
) -> Identity:
    """Keyed by the benchmark's settings and the checkpoint's content (None = the model that training starts from).

    `request` is what the command line adds. `files` are the benchmark's own; without any, its items are the run's
    validation rows, and `StageError` is raised while preprocess is not complete.
    """
    asked = {"benchmark": _benchmark(config, benchmark), "request": dict(request or {})}
    return _asked_identity("eval", config, checkpoint, asked, files or {}, rows=not files, cache=cache)


def sample_identity(
    config: ExperimentConfig,
    checkpoint: Path | None = None,
    *,
    request: Mapping[str, Any] | None = None,
    files: Mapping[str, Path] | None = None,
    rows: bool = True,
    cache: DigestCache | None = None,
) -> Identity:
    """Keyed by the checkpoint's content and the request. `rows`: prompts are rows of the data set, not given ones."""
    return _asked_identity(
        "sample", config, checkpoint, {"request": dict(request or {})}, files or {}, rows=rows, cache=cache
    )


def inspect_identity(
    config: ExperimentConfig,
    checkpoint: Path | None = None,
    *,
    request: Mapping[str, Any] | None = None,
    files: Mapping[str, Path] | None = None,
    rows: bool = True,
    cache: DigestCache | None = None,
) -> Identity:
    """Keyed by rewards, rows and the request; `files` such as the completions to score, by name."""
    return _asked_identity(
        "inspect-rewards", config, checkpoint, {"request": dict(request or {})}, files or {}, rows=rows, cache=cache
    )


def _asked_identity(
    stage: str,
    config: ExperimentConfig,
    checkpoint: Path | None,
    asked: dict[str, Any],
    files: Mapping[str, Path],
    *,
    rows: bool,
    cache: DigestCache | None,
) -> Identity:
    """A stage that somebody asks for: `asked` joins the configuration, its files become inputs `file.<name>`."""
    with _remembering(config, cache) as known:
        inputs = {f"{FILE}{name}": digest.of_file(path, known) for name, path in files.items()}
        inputs |= _plugins(config, known) | _weights(config, checkpoint, known)
        if rows:
            inputs |= _preprocessed(config, known)
    return _identity(stage, config, inputs, asked)


def _identity(
    stage: str, config: ExperimentConfig, inputs: dict[str, str], asked: dict[str, Any] | None = None
) -> Identity:
    recipe = RECIPES[stage]
    part = chosen(config.model_dump(mode="json"), recipe.keys, recipe.without)
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
        raise StageError(WAITS, hint="run `grpo preprocess` with the same configuration first")
    return {"preprocess": outputs}


def _data(config: ExperimentConfig, cache: DigestCache) -> dict[str, str]:
    """Content where there are files, the words of the configuration where only a plugin knows what they mean."""
    found = data_files(config.data).items()
    return {
        key.replace("_path", "_data"): digest.of_tree(files, cache) if files else digest_of(getattr(config.data, key))
        for key, files in found
    }


def _model(model_path: str, cache: DigestCache) -> str:
    return digest.of_tree(model_files(model_directory(model_path)), cache)


def _plugins(config: ExperimentConfig, cache: DigestCache) -> dict[str, str]:
    """One digest of the files' content in their order; nothing without plugins."""
    paths = {str(index): Path(plugin).expanduser() for index, plugin in enumerate(config.plugins)}
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


def _benchmark(config: ExperimentConfig, name: str) -> dict[str, Any]:
    settings = next((entry.config for entry in config.evaluation if entry.name == name), {})
    return {"name": name, "config": settings}


# Where stages write, and what there is of them.


def stage_directory(config: ExperimentConfig, stage: str, identity: Identity) -> Path:
    """`trainer.output_dir` for train, an entry of the store for everything else."""
    if stage == "train":
        return Path(config.trainer.output_dir)
    return store.directory_for(config.paths.stages, identity)


def pipeline_status(config: ExperimentConfig, *, verify: bool = False) -> list[StageState]:
    """Every stage in order, what there is of it, and why it is not `cached`. Runs nothing and downloads nothing new.

    Evaluations, samples and inspections exist only if somebody asked for them: the newest of each is judged by asking
    the same again of today's configuration and newest checkpoint.
    """
    root = Path(config.paths.stages)
    cache = DigestCache(root)
    preprocess = _state(config, "preprocess", lambda: preprocess_identity(config, cache), verify)
    states = [preprocess, _train_state(config, preprocess, cache, verify)]
    states += [_asked_state(config, stage, cache, verify) for stage in STAGES[2:]]
    if root.is_dir():
        cache.save()
    return states


def needs_work(states: list[StageState]) -> list[StageState]:
    """The stages that `--check` objects to: not cached or running, and either of the pipeline or asked for before."""
    return [
        state
        for state in states
        if state.status not in ("cached", "running") and (state.stage in STAGES[:2] or state.status != "missing")
    ]


def _state(config: ExperimentConfig, stage: str, identify: Callable[[], Identity], verify: bool) -> StageState:
    """A stage's state; one whose identity cannot be made, since something it reads is missing, says what."""
    try:
        identity = identify()
    except GrpoError as error:
        return _blocked(config, stage, [error.message])
    return store.state(identity, stage_directory(config, stage, identity), verify=verify)


def _blocked(config: ExperimentConfig, stage: str, reasons: list[str]) -> StageState:
    """`stale` if there is anything of the stage, else `missing`."""
    if stage == "train":
        directory = Path(config.trainer.output_dir)
        there = (directory / IDENTITY_FILE).exists()
    else:
        directory = Path(config.paths.stages) / stage
        there = any(store.entries(config.paths.stages, stage))
    return StageState(stage, directory, "stale" if there else "missing", reasons)


def _train_state(config: ExperimentConfig, upstream: StageState, cache: DigestCache, verify: bool) -> StageState:
    if upstream.status == "cached":
        return _state(config, "train", lambda: train_identity(config, cache), verify)
    directory = Path(config.trainer.output_dir)
    worker = locks.running(directory)
    if worker is not None:
        return StageState("train", directory, "running", [worker])
    try:
        owner = read_identity(directory)
        preprocessed = {"preprocess": owner.inputs.get("preprocess", "")} if owner else {}
        changes = differences(owner, _train_identity(config, preprocessed, cache)) if owner else []
    except GrpoError as error:
        changes = [error.message]
    return _blocked(config, "train", [WAITS, *changes])


def _asked_state(config: ExperimentConfig, stage: str, cache: DigestCache, verify: bool) -> StageState:
    newest = next(store.finished(config.paths.stages, stage), None)
    if newest is None:
        return StageState(stage, Path(config.paths.stages) / stage, "missing", ["nobody asked for it yet"])
    checkpoint = target(config).directory
    return _state(config, stage, lambda: _asked_again(config, newest, checkpoint, cache), verify)


def _asked_again(config: ExperimentConfig, old: Identity, checkpoint: Path | None, cache: DigestCache) -> Identity:
    """What an old request would be today, of another checkpoint; files it was given count as unchanged."""
    asked: dict[str, Any] = {"request": old.config.get("request", {})}
    if "benchmark" in old.config:
        asked["benchmark"] = _benchmark(config, old.config["benchmark"]["name"])
    now = _asked_identity(old.stage, config, checkpoint, asked, {}, rows="preprocess" in old.inputs, cache=cache)
    files = {name: sha256 for name, sha256 in old.inputs.items() if name.startswith(FILE)}
    return replace(now, inputs={**now.inputs, **files})


def unused(config: ExperimentConfig) -> Callable[[Identity], list[str]]:
    """For `gc`: why this configuration would never find an entry again; empty if it would.

    Results of any checkpoint stay as long as the same request would be answered in the same way.
    """
    cache = DigestCache(Path(config.paths.stages))
    current = preprocess_identity(config, cache)

    def reasons(old: Identity) -> list[str]:
        if old.stage == "preprocess":
            return differences(old, current)
        if old.stage not in STAGES:
            return [f"there is no stage {old.stage}"]
        try:
            now = _asked_again(config, old, None, cache)
        except StageError:
            return []  # preprocess is not complete: nobody can tell yet
        weights = {name: old.inputs[name] for name in ("checkpoint", "model") if name in old.inputs}
        others = {name: sha256 for name, sha256 in now.inputs.items() if name not in ("checkpoint", "model")}
        return differences(old, replace(now, inputs={**others, **weights}))

    return reasons
