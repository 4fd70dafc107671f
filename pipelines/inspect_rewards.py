"""The inspect-rewards stage: what the configured rewards accept, seen before hours of training are spent on them.

An entry of the store holds `rows.jsonl`, one scored completion a line; distributions, agreement, adversarial texts and
warnings are its summary.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from pipelines import plan
from pipelines.config import ExperimentConfig
from pipelines.errors import DataError
from pipelines.evaluation.targets import STARTING_MODEL, Target
from pipelines.files import write_text
from pipelines.plugins import load_plugins
from pipelines.rewards import RewardComposer, RewardContext, Scores
from pipelines.rewards.code import sandbox_used
from pipelines.rewards.inspection import agreements, describe, row_records
from pipelines.rewards.inspection_page import inspection_page
from pipelines.rewards.verdicts import MOST_ERROR, judge, length_ranks, low_gold, mean_total, warnings_about
from pipelines.rewards.workers import ParallelComposer
from pipelines.rows.records import Row
from pipelines.stages import requests, store
from pipelines.stages.digest import DigestCache
from pipelines.stages.identity import Identity
from pipelines.stages.store import StageResult

if TYPE_CHECKING:
    from pipelines.evaluation.attacked import Attacked

ROWS_FILE = "rows.jsonl"
ROW_FIELDS = ("row", "total", "rewards", "reasons")
MOST_FAILURES = 100
"""How many failures are kept with their messages; all are counted, and each is in its row."""

Sampler = Callable[[ExperimentConfig, Sequence[int], int], list[RewardContext]]
"""So many fresh completions of each of the training rows with these indices, row by row."""


@dataclass(frozen=True)
class Request:
    """What to score: gold completions of the training rows, a file of completions, or fresh samples of `target`."""

    source: Literal["gold", "completions", "samples"] = "gold"
    rows: int = 200
    """At most so many; all of a file."""
    samples: int = 1
    """Fresh completions a row."""
    completions: Path | None = None
    target: Target = STARTING_MODEL


class Material(NamedTuple):
    """What is scored, the gold completions of the same rows, the adversarial texts made of these, and their rows."""

    scored: list[RewardContext]
    golds: list[RewardContext]
    attacks: dict[str, Attacked]
    places: list[int]
    """Where each gold completion stands among the rows."""


def run(
    config: ExperimentConfig,
    request: Request = Request(),
    *,
    force: bool = False,
    verify: bool = False,
    sampler: Sampler | None = None,
) -> StageResult:
    """Score and judge, or find it done; `records` reads the rows. A reward that raises or hangs is told, no more."""
    composer_of(config)
    identity = identity_of(config, request)

    def work(directory: Path) -> dict[str, Any]:
        material = _material(config, request, sampler or _sampler(request.target))
        with closing(ParallelComposer(config.rewards, config.plugin_files, max_failure_fraction=1.0)) as composer:
            scores = composer.score(material.scored)
            summary = _summary(request, composer, material, scores)
        with (directory / ROWS_FILE).open("w", encoding="utf-8") as stream:
            for record, context in zip(row_records(scores), material.scored, strict=True):
                stream.write(json.dumps(record | _shown(context), default=str) + "\n")
        return summary | sandbox_used(config.rewards)

    directory = plan.stage_directory(config, "inspect-rewards", identity)
    result = store.run_stage(identity, directory, work, force=force, verify=verify)
    requests.note(directory, request.target.words, _files(request))
    return result


def state(config: ExperimentConfig, request: Request = Request(), *, verify: bool = False) -> store.StageState:
    """What `run` would find; nothing is done, nothing is written. ConfigError for rewards that cannot be made."""
    composer_of(config)
    return plan.look(config, "inspect-rewards", lambda cache: identity_of(config, request, cache), verify=verify)


def composer_of(config: ExperimentConfig) -> RewardComposer:
    """The configured rewards, plugins included; here failures are counted and shown, however many."""
    load_plugins(config.plugin_files)
    return RewardComposer(config.rewards, max_failure_fraction=1.0)


def records(result: StageResult) -> Iterator[dict[str, Any]]:
    """The scored rows: ROW_FIELDS, and what was scored."""
    with (result.directory / ROWS_FILE).open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def write_page(result: StageResult, path: Path) -> None:
    """One self-contained HTML page about a result."""
    write_text(path, inspection_page(result.summary, list(records(result))))


def identity_of(config: ExperimentConfig, request: Request, cache: DigestCache | None = None) -> Identity:
    """Keyed by the rewards, their plugins, the rows or the file, and the tokenizer, or the model that samples."""
    if request.completions is not None and not request.completions.is_file():
        raise DataError(f"there is no file {request.completions}", hint="--completions takes JSONL rows")
    sampled, given = request.source == "samples", request.completions is not None
    asked = {"source": request.source, "rows": None if given else request.rows}
    return plan.asked_identity(
        "inspect-rewards",
        config,
        request.target.directory if sampled else None,
        request=asked | ({"samples": request.samples} if sampled else {}),
        files=_files(request),
        rows=not given,
        weights=sampled,
        also=("data.prompt_key", "data.completion_key", "data.system_prompt") if given else (),
        cache=cache,
    )


def _files(request: Request) -> dict[str, Path]:
    return {} if request.completions is None else {"completions": request.completions}


def _material(config: ExperimentConfig, request: Request, sampler: Sampler) -> Material:
    from pipelines.evaluation.attacked import attacked
    from pipelines.evaluation.given import Given, given_contexts, read_given
    from pipelines.models.load import load_tokenizer

    tokenizer = load_tokenizer(config.model.model_path)
    scored: list[RewardContext] = []
    if request.completions is not None:
        given = read_given(request.completions, config)
        rows = [each.row for each in given]
        scored = given_contexts(tokenizer, given, config)
    else:
        rows = _training_rows(config, request.rows)
        if request.source == "samples":
            scored = sampler(config, range(len(rows)), request.samples)
    known = [(place, Given(row, row.completion)) for place, row in enumerate(rows) if row.completion]
    places, texts = [place for place, _ in known], [gold for _, gold in known]
    golds = given_contexts(tokenizer, texts, config)
    if request.source == "gold":
        if not golds:
            raise DataError(
                "no training row has a completion to score",
                hint="--samples 4 scores what the model writes, --completions FILE texts of yours",
            )
        scored, places = golds, list(range(len(golds)))
    return Material(scored, golds, attacked(tokenizer, texts, golds, config), places)


def _training_rows(config: ExperimentConfig, limit: int) -> list[Row]:
    from pipelines.tokens.dataset import TokenDataset

    dataset = TokenDataset(plan.stage_directory(config, "preprocess", plan.preprocess_identity(config)), "train")
    return [dataset.row(index) for index in range(min(limit, len(dataset)))]


def _sampler(target: Target) -> Sampler:
    """Completions as training would sample them."""

    def sample(config: ExperimentConfig, indices: Sequence[int], samples: int) -> list[RewardContext]:
        from pipelines import backend
        from pipelines.evaluation.completions import complete, prompts_of
        from pipelines.tokens.dataset import TokenDataset

        seed = config.trainer.evaluation_seed
        backend.prepare(seed)
        dataset = TokenDataset(plan.stage_directory(config, "preprocess", plan.preprocess_identity(config)), "train")
        batches = complete(
            target.load(config),
            prompts_of(dataset, indices),
            config.generation,
            group_size=samples,
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


def _summary(request: Request, composer: ParallelComposer, material: Material, scores: Scores) -> dict[str, Any]:
    """Everything but the rows: what `inspect-rewards` says about them."""
    scored = material.scored
    gold = scores if scored is material.golds else composer.score(material.golds) if material.golds else None
    level = None if gold is None else mean_total(gold)
    found = {name: composer.score(texts.contexts) for name, texts in material.attacks.items()}
    attacks = [
        judge(name, found[name], texts.contexts, [material.places[row] for row in texts.rows], level)
        for name, texts in material.attacks.items()
    ]
    control = None
    if gold is not None and gold is not scores:
        contexts = [material.golds, *(texts.contexts for texts in material.attacks.values())]
        control = length_ranks([gold, *found.values()], [each.length_tokens for some in contexts for each in some])
    distributions = describe(scores, [context.length_tokens for context in scored])
    compared = [scores, *found.values()] if scores is gold else [scores]
    return {
        "source": request.source,
        "rows": len(scored),
        "components": [
            asdict(each) | {"edges": each.edges, "seconds": scores.seconds.get(each.name, sum(scores.seconds.values()))}
            for each in distributions
        ],
        "agreement": {
            "texts": sum(len(each.totals) for each in compared),
            "pairs": [asdict(pair) for pair in agreements(compared)],
        },
        "groups": _groups(scores, request.samples) if request.source == "samples" and request.samples > 1 else None,
        "gold": level,
        "low_gold": low_gold(scores, list(found.values())) if gold is scores else [],
        "attacks": [asdict(attack) for attack in attacks],
        "failures": [
            asdict(failure) | {"error": failure.error[:MOST_ERROR]} for failure in scores.failures[:MOST_FAILURES]
        ],
        "failed": len(scores.failures),
        "warnings": warnings_about(scores, distributions, gold, attacks, list(found.values()), control=control),
    }


def _groups(scores: Scores, samples: int) -> dict[str, int]:
    """How many prompts there are, and at how many all samples earn the same: these have no advantage to learn from."""
    totals = scores.totals.reshape(-1, samples)
    alike = sum(len(set(group[~np.isnan(group)].tolist())) < 2 for group in totals)
    return {"prompts": len(totals), "samples": samples, "without_spread": alike}
