"""What there is of every stage today, and what of the store nobody would find again. Runs nothing, downloads nothing.

Evaluations, samples and inspections exist only if somebody asked for them. Each is judged by asking the same again, in
the words it was asked in: of the same directory, of the starting model, or of whatever is the newest checkpoint now.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from pipelines import plan
from pipelines.config import ExperimentConfig
from pipelines.errors import CheckpointError, GrpoError
from pipelines.evaluation.targets import BASE, LAST, target
from pipelines.hub import looking
from pipelines.stages import locks, requests, store
from pipelines.stages.digest import DigestCache
from pipelines.stages.explain import differences
from pipelines.stages.identity import Identity, canonical_json, read_identity
from pipelines.stages.requests import Request
from pipelines.stages.store import StageState


@dataclass(frozen=True)
class Earlier:
    """A request that was answered once."""

    identity: Identity
    request: Request

    @property
    def kind(self) -> tuple[str, str]:
        """Of the requests of one kind only the newest is judged: the model in words, and benchmark or source."""
        asked = self.identity.config
        source = asked.get("benchmark", {}).get("name") or asked.get("request", {}).get("source", "")
        return self.request.target if "tokenizer" not in self.identity.inputs else "", source

    def __str__(self) -> str:
        """Such as `last: exact_match, limit=50`."""
        of, source = self.kind
        options = {key: value for key, value in self.identity.config.get("request", {}).items() if value is not None}
        prompts = "given prompts" if options.pop("prompts", None) else ""
        options.pop("source", None)
        shown = (f"{key}={canonical_json(value)}" for key, value in options.items())
        what = ", ".join(filter(None, [source, prompts, *shown]))
        return ": ".join(filter(None, [of, what]))


@looking()
def pipeline_status(config: ExperimentConfig, *, verify: bool = False) -> list[StageState]:
    """Every stage in order, what there is of it, and why it is not `cached`.

    `verify` compares contents: of outputs with their manifests, of inputs with what is remembered of them.
    """
    root = Path(config.paths.stages)
    cache = DigestCache(root, believe=not verify)
    preprocess = _state(config, "preprocess", partial(plan.preprocess_identity, config), cache, verify)
    states = [preprocess, _train_state(config, preprocess, cache, verify)]
    for stage in plan.ASKED_STAGES:
        found = [_asked_state(config, earlier, cache, verify) for earlier in _newest_of_each_kind(root, stage)]
        states += found or [StageState(stage, root / stage, "missing", ["nobody asked for it yet"])]
    if root.is_dir():
        cache.save()
    return states


def needs_work(states: list[StageState]) -> list[StageState]:
    """The stages that `--check` objects to: not cached or running, and either of the pipeline or asked for before."""
    return [
        state
        for state in states
        if state.status not in ("cached", "running") and (state.stage in plan.PIPELINE or state.status != "missing")
    ]


def _state(
    config: ExperimentConfig,
    stage: str,
    identify: Callable[[DigestCache], Identity],
    cache: DigestCache,
    verify: bool,
) -> StageState:
    """A stage's state; one whose identity cannot be made, since something it reads is missing, says what."""
    try:
        return plan.look(config, stage, identify, cache=cache, verify=verify)
    except GrpoError as error:
        return plan.blocked(config, stage, [error.message])


def _train_state(config: ExperimentConfig, upstream: StageState, cache: DigestCache, verify: bool) -> StageState:
    if upstream.status == "cached":
        return _state(config, "train", partial(plan.train_identity, config), cache, verify)
    return train_that_waits(config, cache)


@looking()
def train_that_waits(config: ExperimentConfig, cache: DigestCache | None = None) -> StageState:
    """The run while preprocess is not cached: what is known to differ already, apart from the tokens."""
    directory = Path(config.trainer.output_dir)
    worker = locks.running(directory)
    if worker is not None:
        return StageState("train", directory, "running", [worker])
    try:
        owner = read_identity(directory)
        tokens = owner.inputs.get("preprocess", "") if owner else ""
        changes = differences(owner, plan.train_identity(config, cache, tokens=tokens)) if owner else []
    except GrpoError as error:
        changes = [error.message]
    return plan.blocked(config, "train", [plan.WAITS, *changes])


def _newest_of_each_kind(root: Path, stage: str) -> list[Earlier]:
    """The newest first."""
    found = sorted(_earlier(root, stage), key=lambda each: each.request.asked_ns, reverse=True)
    newest: dict[tuple[str, str], Earlier] = {}
    for earlier in found:
        newest.setdefault(earlier.kind, earlier)
    return list(newest.values())


def _earlier(root: Path, stage: str) -> Iterator[Earlier]:
    for entry, identity in store.finished(root, stage):
        guess = Request(LAST if "checkpoint" in identity.inputs else BASE)  # it lost its note, or never had one
        yield from (Earlier(identity, request) for request in requests.noted(entry) or [guess])


def _asked_state(config: ExperimentConfig, earlier: Earlier, cache: DigestCache, verify: bool) -> StageState:
    old, stage = earlier.identity, earlier.identity.stage
    nowhere = Path(config.paths.stages) / stage
    files = {name: path for name, text in earlier.request.files.items() if (path := Path(text)).is_file()}
    try:
        checkpoint = target(config, earlier.request.target).directory
        now = plan.asked_again(config, old, checkpoint, files=files, cache=cache)
    except CheckpointError as error:  # nobody can ask that again
        return StageState(stage, nowhere, "missing", [error.message], str(earlier))
    except GrpoError as error:
        return StageState(stage, nowhere, "stale", [error.message], str(earlier))
    found = store.state(now, plan.stage_directory(config, stage, now), verify=verify)
    reasons = differences(old, now) if found.status == "stale" else found.reasons
    return replace(found, reasons=reasons, asked=str(earlier))


def unused(config: ExperimentConfig) -> Callable[[Identity], list[str]]:
    """For `gc`: why this configuration would never find an entry again; empty if it would, or if nobody can tell yet.

    Results of any checkpoint stay as long as the same request would be answered in the same way.
    """
    cache = DigestCache(Path(config.paths.stages))

    def reasons(old: Identity) -> list[str]:
        if old.stage not in ("preprocess", *plan.ASKED_STAGES):
            return [f"there is no stage {old.stage}"]
        try:
            now = _today(config, old, cache)
        except GrpoError:
            return []  # preprocess is not complete, or something to read is missing
        return differences(old, now)

    return reasons


@looking()
def _today(config: ExperimentConfig, old: Identity, cache: DigestCache) -> Identity:
    if old.stage == "preprocess":
        return plan.preprocess_identity(config, cache)
    now = plan.asked_again(config, old, None, cache=cache)
    weights = {name: old.inputs[name] for name in ("checkpoint", "model") if name in old.inputs}
    others = {name: sha256 for name, sha256 in now.inputs.items() if name not in ("checkpoint", "model")}
    return replace(now, inputs={**others, **weights})
