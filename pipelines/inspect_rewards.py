"""The inspect-rewards stage: what the configured rewards accept, seen before hours of training are spent on them.

An entry of the store holds `rows.jsonl`, one scored completion a line; distributions, adversarial texts and warnings
are its summary.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pipelines import plan
from pipelines.config import ExperimentConfig
from pipelines.errors import DataError
from pipelines.evaluation.targets import STARTING_MODEL, Target
from pipelines.plugins import load_plugins
from pipelines.rewards import RewardComposer, RewardContext, Scores
from pipelines.rewards.battery import ATTACKS
from pipelines.rewards.inspection import describe, mean_total, row_records, warnings_about
from pipelines.rows.records import Row
from pipelines.stages import store
from pipelines.stages.identity import Identity
from pipelines.stages.store import StageResult

ROWS_FILE = "rows.jsonl"
ROW_FIELDS = ("row", "total", "rewards", "reasons")
ATTACKED_ROWS = 100
"""How many gold completions the adversarial texts are made of."""

Sampler = Callable[[ExperimentConfig, Sequence[int]], list[RewardContext]]
"""Fresh completions of the training rows with these indices, one each."""


@dataclass(frozen=True)
class Request:
    """What to score: gold completions of the training rows, a file of completions, or fresh samples of `target`."""

    source: Literal["gold", "completions", "samples"] = "gold"
    rows: int = 200
    """At most so many; all of a file."""
    completions: Path | None = None
    target: Target = STARTING_MODEL


def run(
    config: ExperimentConfig, request: Request = Request(), *, force: bool = False, sampler: Sampler | None = None
) -> StageResult:
    """Score and judge, or find it done; `records` reads the rows. A reward that raises is told, and ends nothing."""
    composer = composer_of(config)
    identity = identity_of(config, request)

    def work(directory: Path) -> dict[str, Any]:
        scored, golds, attacks = _contexts(config, request, sampler or _sampler(request.target))
        scores = composer.score(scored)
        with (directory / ROWS_FILE).open("w", encoding="utf-8") as stream:
            for record, context in zip(row_records(scores), scored, strict=True):
                stream.write(json.dumps(record | _shown(context), ensure_ascii=False, default=str) + "\n")
        gold = scores if scored is golds else composer.score(golds) if golds else None
        judged = {name: composer.score(contexts) for name, contexts in attacks.items() if contexts}
        return _summary(request, scored, scores, gold, judged)

    return store.run_stage(identity, plan.stage_directory(config, "inspect-rewards", identity), work, force=force)


def state(config: ExperimentConfig, request: Request = Request()) -> store.StageState:
    """What `run` would find; nothing is done. ConfigError for rewards that cannot be made."""
    composer_of(config)
    identity = identity_of(config, request)
    return store.state(identity, plan.stage_directory(config, "inspect-rewards", identity))


def composer_of(config: ExperimentConfig) -> RewardComposer:
    """The configured rewards, plugins included; here failures are counted and shown, however many."""
    load_plugins(config.plugins)
    return RewardComposer(config.rewards, max_failure_fraction=1.0)


def records(result: StageResult) -> Iterator[dict[str, Any]]:
    """The scored rows: ROW_FIELDS, and what was scored."""
    with (result.directory / ROWS_FILE).open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def identity_of(config: ExperimentConfig, request: Request) -> Identity:
    """Keyed by the rewards, their plugins, the rows or the file, and the tokenizer or model."""
    asked: dict[str, Any] = {"source": request.source}
    if request.completions is None:
        directory = request.target.directory if request.source == "samples" else None
        return plan.inspect_identity(config, directory, request=asked | {"rows": request.rows})
    if not request.completions.is_file():
        raise DataError(f"there is no file {request.completions}", hint="--completions takes JSONL rows")
    data = config.data
    asked |= {"prompt_key": data.prompt_key, "completion_key": data.completion_key, "system_prompt": data.system_prompt}
    files = {"completions": request.completions}
    return plan.inspect_identity(config, None, request=asked, files=files, rows=False)


def _contexts(
    config: ExperimentConfig, request: Request, sampler: Sampler
) -> tuple[list[RewardContext], list[RewardContext], dict[str, list[RewardContext]]]:
    """What is scored, the gold completions of the same rows, and the adversarial texts made of these."""
    from pipelines.evaluation.given import Given, given_contexts, read_given
    from pipelines.models.load import load_tokenizer

    tokenizer = load_tokenizer(config.model.model_path)
    if request.completions is not None:
        given = read_given(request.completions, config)
        rows = [each.row for each in given]
        scored = given_contexts(tokenizer, given, config)
    else:
        rows = _training_rows(config, request.rows)
        scored = sampler(config, range(len(rows))) if request.source == "samples" else []
    known = [(row, row.completion) for row in rows if row.completion]
    golds = given_contexts(tokenizer, [Given(row, text) for row, text in known], config)
    if request.source == "gold":
        if not golds:
            raise DataError("no training row has a completion to score", hint="give texts to score in --completions")
        scored = golds
    attacked = golds[:ATTACKED_ROWS]
    attacks: dict[str, list[RewardContext]] = {}
    for name, attack in ATTACKS.items():
        texts = zip(known, attack(attacked), strict=False)
        made = [Given(row, text, cut=name == "truncated") for (row, _), text in texts if text is not None]
        attacks[name] = given_contexts(tokenizer, made, config)
    return scored, golds, attacks


def _training_rows(config: ExperimentConfig, limit: int) -> list[Row]:
    from pipelines.tokens.dataset import TokenDataset

    dataset = TokenDataset(plan.stage_directory(config, "preprocess", plan.preprocess_identity(config)), "train")
    return [dataset.row(index) for index in range(min(limit, len(dataset)))]


def _sampler(target: Target) -> Sampler:
    """One completion a prompt, as training would sample it."""

    def sample(config: ExperimentConfig, indices: Sequence[int]) -> list[RewardContext]:
        from pipelines import backend
        from pipelines.evaluation.completions import complete, prompts_of
        from pipelines.tokens.dataset import TokenDataset

        seed = max(0, config.trainer.seed)
        backend.prepare(seed)
        dataset = TokenDataset(plan.stage_directory(config, "preprocess", plan.preprocess_identity(config)), "train")
        batches = complete(
            target.load(config),
            prompts_of(dataset, indices),
            config.generation,
            group_size=1,
            max_tokens=config.data.max_gen_len,
            seed=seed,
            purpose="inspect-rewards",
        )
        return [context for batch in batches for context in batch.contexts]

    return sample


def _shown(context: RewardContext) -> dict[str, Any]:
    return {
        "prompt": context.prompt_text,
        "generated": context.generated_text,
        "thinking_tokens": context.thinking_tokens,
        "answer_tokens": context.answer_tokens,
    }


def _summary(
    request: Request, scored: list[RewardContext], scores: Scores, gold: Scores | None, attacks: dict[str, Scores]
) -> dict[str, Any]:
    components = describe(scores, [context.length_tokens for context in scored])
    return {
        "source": request.source,
        "rows": len(scored),
        "components": [
            asdict(each) | {"seconds": scores.seconds.get(each.name, sum(scores.seconds.values()))}
            for each in components
        ],
        "gold": None if gold is None else mean_total(gold),
        "attacks": [
            {"name": name, "rows": len(each.totals), "total": mean_total(each)} for name, each in attacks.items()
        ],
        "failures": [asdict(failure) for failure in scores.failures],
        "warnings": warnings_about(scores, gold, attacks),
    }
