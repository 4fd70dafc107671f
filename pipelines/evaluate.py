"""The eval stage: score a checkpoint (or the starting model) on benchmarks, each score once; compare two on the same
items.

A score is an entry of the store: `items.jsonl`, one record a completion, and the metrics in its manifest. Nothing
heavy is imported while everything asked for is there already.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines import plan
from pipelines.config import EvaluationConfig, ExperimentConfig
from pipelines.errors import GrpoError
from pipelines.evaluation.base import OF_COMPLETIONS, Sources
from pipelines.evaluation.entries import check_entries
from pipelines.evaluation.registry import EvaluatorRegistry
from pipelines.evaluation.targets import STARTING_MODEL, Target
from pipelines.plugins import load_plugins
from pipelines.stages import requests, store
from pipelines.stages.digest import DigestCache
from pipelines.stages.explain import differences
from pipelines.stages.identity import Identity, read_identity
from pipelines.stages.store import StageResult, StageState

if TYPE_CHECKING:
    from pipelines.evaluation.statistics import Paired
    from pipelines.models.load import LoadedModel

ITEMS_FILE = "items.jsonl"

Progress = Callable[[str, int, int], None]
"""Called with what is being scored, how many items are done, and of how many."""


@dataclass(frozen=True)
class Score:
    """One model on one benchmark; `metrics` are those of its evaluator."""

    benchmark: str
    model: str
    result: StageResult

    @property
    def metrics(self) -> dict[str, Any]:
        return self.result.summary

    def by_item(self) -> dict[int, float]:
        """The score of each item, read from its records."""
        from pipelines.evaluation.records import by_item

        with (self.result.directory / ITEMS_FILE).open(encoding="utf-8") as lines:
            return by_item([json.loads(line) for line in lines])


@dataclass(frozen=True)
class Evaluation:
    """A score; with a baseline, the starting model's on the same items and how they differ."""

    score: Score
    baseline: Score | None = None
    difference: Paired | None = None


@dataclass(frozen=True)
class Scorer:
    """One model, loaded when the first score is not there yet; `settings` go on top of each benchmark's own."""

    config: ExperimentConfig
    target: Target
    settings: Mapping[str, Any] | None = None

    @cached_property
    def loaded(self) -> LoadedModel:
        from pipelines import backend

        backend.prepare(self.config.trainer.evaluation_seed)
        return self.target.load(self.config)

    def score(self, entry: EvaluationConfig, *, force: bool, verify: bool, progress: Progress | None) -> Score:
        """The score of a benchmark, from the store or by work."""
        identity, directory = self.place(entry)
        result = store.run_stage(
            identity, directory, lambda place: self._work(entry, place, progress), force=force, verify=verify
        )
        requests.note(directory, self.target.words, _files(entry))
        return Score(entry.name, self.target.name, result)

    def place(self, entry: EvaluationConfig, cache: DigestCache | None = None) -> tuple[Identity, Path]:
        """The identity and directory of a score."""
        evaluator = EvaluatorRegistry.create(entry.name, entry.config)
        files, also = dict(evaluator.files()), evaluator.reads
        if files:
            also += ("data.system_prompt",)  # of rows that preprocess has not rendered
        identity = plan.asked_identity(
            "eval",
            self.config,
            self.target.directory,
            benchmark=entry.name,
            request=self.settings,
            files=files,
            rows=not files,
            also=also,
            cache=cache,
        )
        return identity, plan.stage_directory(self.config, "eval", identity)

    def state(self, entry: EvaluationConfig, cache: DigestCache, *, verify: bool) -> StageState:
        """What there is of a score."""
        return plan.look(self.config, "eval", lambda known: self.place(entry, known)[0], cache=cache, verify=verify)

    def _work(self, entry: EvaluationConfig, directory: Path, progress: Progress | None) -> dict[str, Any]:
        """Score one benchmark into a directory; the metrics are its summary."""
        from pipelines.evaluation import scoring

        evaluator = EvaluatorRegistry.create(entry.name, entry.config)
        seed = self.config.trainer.evaluation_seed
        prompts = scoring.chosen(evaluator.items(self._sources()), evaluator.settings.limit, seed)
        records = scoring.score(
            evaluator,
            prompts,
            self.loaded,
            self.config.generation,
            max_tokens=self.config.data.max_gen_len,
            seed=seed,
            progress=progress and (lambda done, total: progress(f"{entry.name}, {self.target.name}", done, total)),
        )
        with (directory / ITEMS_FILE).open("w", encoding="utf-8") as stream:
            stream.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        return evaluator.metrics(records) | evaluator.conditions(self.config)

    def _sources(self) -> Sources:
        from pipelines.tokens.dataset import TokenDataset

        tokens = plan.stage_directory(self.config, "preprocess", plan.preprocess_identity(self.config))
        return Sources(self.loaded.tokenizer, self.config, lambda: TokenDataset(tokens, "val"))


def run(
    config: ExperimentConfig,
    *,
    target: Target = STARTING_MODEL,
    benchmarks: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    baseline: bool = False,
    force: bool = False,
    verify: bool = False,
    progress: Progress | None = None,
    on_failure: Callable[[str, GrpoError], None] | None = None,
) -> list[Evaluation]:
    """Score `target` on the benchmarks (default: those of the configuration), and the starting model beside it.

    `settings` overrides keys of every benchmark's own configuration, such as `limit`. `force` scores the target anew;
    a score of the starting model beside it is reused even then. A benchmark that cannot be run is told to `on_failure`
    and left out; without it its error is raised.
    """
    entries = chosen_benchmarks(config, benchmarks, settings)
    scorer, base = Scorer(config, target, settings), Scorer(config, STARTING_MODEL, settings)
    found: list[Evaluation] = []
    for entry in entries:
        try:
            score = scorer.score(entry, force=force, verify=verify, progress=progress)
            if baseline and target != STARTING_MODEL:
                before = base.score(entry, force=False, verify=verify, progress=progress)
                found.append(beside(score, before, config.trainer.evaluation_seed))
            else:
                found.append(Evaluation(score))
        except GrpoError as error:  # noqa: PERF203 - a benchmark takes minutes
            if on_failure is None:
                raise
            on_failure(entry.name, error)
    return found


def states(
    config: ExperimentConfig,
    *,
    target: Target = STARTING_MODEL,
    benchmarks: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    baseline: bool = False,
    verify: bool = False,
) -> list[tuple[str, str, StageState]]:
    """What `run` would find: benchmark, model and the state of that score; nothing is done, nothing is written."""
    targets = dict.fromkeys([target, STARTING_MODEL] if baseline else [target])
    cache = DigestCache(Path(config.paths.stages))
    return [
        (entry.name, model.name, Scorer(config, model, settings).state(entry, cache, verify=verify))
        for model in targets
        for entry in chosen_benchmarks(config, benchmarks, settings)
    ]


def chosen_benchmarks(
    config: ExperimentConfig, names: Sequence[str] = (), settings: Mapping[str, Any] | None = None
) -> list[EvaluationConfig]:
    """The benchmarks to run, each checked: those of the configuration, or those named, with `settings` on top.

    Settings of completions leave a benchmark as it is that decodes none.
    ConfigError for a name or key that does not exist, and for one that does not work yet.
    """
    load_plugins(config.plugin_files)
    configured = {entry.name: entry for entry in config.evaluation}
    entries = [configured.get(name, EvaluationConfig(name=name)) for name in names] or list(config.evaluation)
    where = "benchmark" if names else ""
    check_entries(entries, config.generation, where=where)
    changed = [_with(entry, settings or {}) for entry in entries]
    check_entries(changed, config.generation, where=where)
    return changed


def _with(entry: EvaluationConfig, settings: Mapping[str, Any]) -> EvaluationConfig:
    decodes = EvaluatorRegistry.create(entry.name, entry.config).decodes
    meant = {key: value for key, value in settings.items() if decodes or key not in OF_COMPLETIONS}
    return entry.model_copy(update={"config": {**entry.config, **meant}})


def trained_otherwise(config: ExperimentConfig) -> list[str]:
    """How the run in `trainer.output_dir` differs from one that this configuration would train, line by line."""
    owner = read_identity(Path(config.trainer.output_dir))
    return [] if owner is None else differences(owner, plan.train_identity(config))


def _files(entry: EvaluationConfig) -> dict[str, Path]:
    """What a benchmark brings to read, by name; empty if it asks the run's validation rows."""
    return dict(EvaluatorRegistry.create(entry.name, entry.config).files())


def beside(score: Score, baseline: Score, seed: int) -> Evaluation:
    """Two scores on the items that both have."""
    from pipelines.evaluation.statistics import paired_bootstrap

    before, after = baseline.by_item(), score.by_item()
    items = sorted(before.keys() & after.keys())
    difference = paired_bootstrap([before[i] for i in items], [after[i] for i in items], seed=seed)
    return Evaluation(score, baseline, difference)
