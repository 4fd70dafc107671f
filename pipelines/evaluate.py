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
from pipelines.errors import ConfigError
from pipelines.evaluation.base import Sources
from pipelines.evaluation.registry import EvaluatorRegistry
from pipelines.evaluation.scoring import temperature_of
from pipelines.evaluation.targets import STARTING_MODEL, Target
from pipelines.plugins import load_plugins
from pipelines.stages import store
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
    """One model on one benchmark; `metrics` are those of `evaluation.scoring.metrics`."""

    benchmark: str
    model: str
    result: StageResult

    @property
    def metrics(self) -> dict[str, Any]:
        return self.result.summary

    def by_item(self) -> dict[int, float]:
        """The score of each item, read from its records."""
        from pipelines.evaluation.scoring import by_item

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

        backend.prepare(seed_of(self.config))
        return self.target.load(self.config)

    def score(self, entry: EvaluationConfig, *, force: bool, verify: bool, progress: Progress | None) -> Score:
        """The score of a benchmark, from the store or by work."""
        identity, directory = self.place(entry)
        result = store.run_stage(
            identity, directory, lambda place: self._work(entry, place, progress), force=force, verify=verify
        )
        return Score(entry.name, self.target.name, result)

    def place(self, entry: EvaluationConfig) -> tuple[Identity, Path]:
        """The identity and directory of a score."""
        request = dict(self.settings or {})
        files = EvaluatorRegistry.create(entry.name, entry.config).files()
        if files:  # rows that preprocess has not rendered
            request["system_prompt"] = self.config.data.system_prompt
        identity = plan.eval_identity(self.config, self.target.directory, entry.name, request=request, files=files)
        return identity, plan.stage_directory(self.config, "eval", identity)

    def _work(self, entry: EvaluationConfig, directory: Path, progress: Progress | None) -> dict[str, Any]:
        """Score one benchmark into a directory; the metrics are its summary."""
        from pipelines.evaluation import scoring

        evaluator = EvaluatorRegistry.create(entry.name, entry.config)
        prompts = scoring.chosen(evaluator.items(self._sources()), evaluator.settings.limit, seed_of(self.config))
        records = scoring.score(
            evaluator,
            prompts,
            self.loaded,
            self.config.generation,
            max_tokens=self.config.data.max_gen_len,
            seed=seed_of(self.config),
            progress=progress and (lambda done, total: progress(f"{entry.name}, {self.target.name}", done, total)),
        )
        with (directory / ITEMS_FILE).open("w", encoding="utf-8") as stream:
            stream.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        return scoring.metrics(records)

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
) -> list[Evaluation]:
    """Score `target` on the benchmarks (default: those of the configuration), and the starting model beside it.

    `settings` overrides keys of every benchmark's own configuration, such as `limit`. `force` scores the target anew;
    a score of the starting model beside it is reused even then.
    """
    entries = chosen_benchmarks(config, benchmarks, settings)
    scorer, base = Scorer(config, target, settings), Scorer(config, STARTING_MODEL, settings)
    scores = [scorer.score(entry, force=force, verify=verify, progress=progress) for entry in entries]
    if not baseline or target == STARTING_MODEL:
        return [Evaluation(score) for score in scores]
    return [
        beside(score, base.score(entry, force=False, verify=verify, progress=progress), seed_of(config))
        for entry, score in zip(entries, scores, strict=True)
    ]


def states(
    config: ExperimentConfig,
    *,
    target: Target = STARTING_MODEL,
    benchmarks: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    baseline: bool = False,
) -> list[tuple[str, str, StageState]]:
    """What `run` would find: benchmark, model and the state of that score; nothing is done.

    StageError while preprocess is not complete, for then nobody can tell.
    """
    targets = dict.fromkeys([target, STARTING_MODEL] if baseline else [target])
    return [
        (entry.name, model.name, store.state(*Scorer(config, model, settings).place(entry)))
        for model in targets
        for entry in chosen_benchmarks(config, benchmarks, settings)
    ]


def chosen_benchmarks(
    config: ExperimentConfig, names: Sequence[str] = (), settings: Mapping[str, Any] | None = None
) -> list[EvaluationConfig]:
    """The benchmarks to run, each checked: those of the configuration, or those named, with `settings` on top.

    ConfigError for a name or key that does not exist, and for one that does not work yet.
    """
    load_plugins(config.plugins)
    configured = {entry.name: entry for entry in config.evaluation}
    if len(configured) < len(config.evaluation):
        raise ConfigError("evaluation: a benchmark stands in it twice", hint="give each name once")
    entries = [configured.get(name, EvaluationConfig(name=name)) for name in names] or list(config.evaluation)
    changed = [entry.model_copy(update={"config": {**entry.config, **(settings or {})}}) for entry in entries]
    for index, entry in enumerate(changed):
        where = "benchmark" if names else f"evaluation[{index}]"
        temperature_of(EvaluatorRegistry.create(entry.name, entry.config, where=where).settings, config.generation)
    return changed


def trained_otherwise(config: ExperimentConfig) -> list[str]:
    """How the run in `trainer.output_dir` differs from one that this configuration would train, line by line."""
    owner = read_identity(Path(config.trainer.output_dir))
    return [] if owner is None else differences(owner, plan.train_identity(config))


def seed_of(config: ExperimentConfig) -> int:
    """The seed of an evaluation: the run's, or 0 where the run draws one."""
    return max(0, config.trainer.seed)


def beside(score: Score, baseline: Score, seed: int) -> Evaluation:
    """Two scores on the items that both have."""
    from pipelines.evaluation.statistics import paired_bootstrap

    before, after = baseline.by_item(), score.by_item()
    items = sorted(before.keys() & after.keys())
    difference = paired_bootstrap([before[i] for i in items], [after[i] for i in items], seed=seed)
    return Evaluation(score, baseline, difference)
