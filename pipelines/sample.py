"""The sample stage: completions to look at, with their regions, rewards, lengths and speed; each request once.

An entry of the store holds `samples.jsonl`, one record a completion, sample by sample within a prompt.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines import plan
from pipelines.config import ExperimentConfig
from pipelines.evaluation.targets import STARTING_MODEL, Target
from pipelines.plugins import load_plugins
from pipelines.rewards import RewardComposer
from pipelines.rewards.code import sandbox_used
from pipelines.rows.records import Row, to_json
from pipelines.stages import requests, store
from pipelines.stages.digest import DigestCache
from pipelines.stages.identity import Identity, digest_of
from pipelines.stages.store import StageResult, StageState

if TYPE_CHECKING:
    from pipelines.evaluation.completions import Completed, Prompt
    from pipelines.models.load import LoadedModel

SAMPLES_FILE = "samples.jsonl"


@dataclass(frozen=True)
class Request:
    """What to complete: `prompts` of the user's, or without any the first `rows` validation rows; and how."""

    prompts: tuple[Row, ...] = ()
    rows: int = 4
    samples: int = 1
    temperature: float | None = None
    """None: generation.temperature."""
    max_tokens: int | None = None
    """None: data.max_gen_len."""


def run(
    config: ExperimentConfig,
    request: Request,
    *,
    target: Target = STARTING_MODEL,
    force: bool = False,
    verify: bool = False,
) -> StageResult:
    """Complete the prompts and reward the completions, or find them done; `records` reads them."""
    load_plugins(config.plugin_files)
    composer = RewardComposer(config.rewards, max_failure_fraction=1.0)  # here a failure is shown, and ends nothing
    identity = identity_of(config, request, target)
    directory = plan.stage_directory(config, "sample", identity)

    def work(place: Path) -> dict[str, Any]:
        from pipelines import backend

        backend.prepare(config.trainer.evaluation_seed)
        found, seconds = [], 0.0
        loaded = target.load(config)
        for batch in _completed(config, request, loaded, _prompts(config, request, loaded)):
            found += _records(batch, composer)
            seconds += batch.rollouts.seconds
        with (place / SAMPLES_FILE).open("w", encoding="utf-8") as stream:
            stream.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in found)
        tokens = sum(record["tokens"] for record in found)
        speed = {"completions": len(found), "tokens": tokens, "tokens_per_second": tokens / seconds}
        return speed | sandbox_used(config.rewards)

    result = store.run_stage(identity, directory, work, force=force, verify=verify)
    requests.note(directory, target.words)
    return result


def state(
    config: ExperimentConfig, request: Request, target: Target = STARTING_MODEL, *, verify: bool = False
) -> StageState:
    """What `run` would find; nothing is done, nothing is written."""
    return plan.look(config, "sample", lambda cache: identity_of(config, request, target, cache), verify=verify)


def records(result: StageResult) -> Iterator[dict[str, Any]]:
    """What a run wrote, record by record."""
    with (result.directory / SAMPLES_FILE).open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def identity_of(
    config: ExperimentConfig, request: Request, target: Target, cache: DigestCache | None = None
) -> Identity:
    """Keyed by the prompts' content or number, the settings, the rewards and the model."""
    asked: dict[str, Any] = {
        "samples": request.samples,
        "temperature": request.temperature,
        "max_tokens": request.max_tokens,
    }
    if not request.prompts:
        asked["rows"] = request.rows
        return plan.asked_identity("sample", config, target.directory, request=asked, cache=cache)
    asked["prompts"] = digest_of([json.loads(to_json(row)) | {"source": ""} for row in request.prompts])
    also = ("data.system_prompt",)
    return plan.asked_identity("sample", config, target.directory, request=asked, rows=False, also=also, cache=cache)


class Conversation:
    """A model that stays loaded and is asked one thing after the other; nothing is stored.

    The same prompt asked again is answered by other random numbers.
    """

    def __init__(self, config: ExperimentConfig, request: Request, target: Target) -> None:
        from pipelines import backend

        load_plugins(config.plugin_files)
        backend.prepare(config.trainer.evaluation_seed)
        self.config, self.request = config, request
        self.loaded = target.load(config)
        self._composer = RewardComposer(config.rewards, max_failure_fraction=1.0)
        self._asked = 0

    def ask(self, text: str) -> list[dict[str, Any]]:
        """Records as in `samples.jsonl`, `request.samples` of them."""
        from pipelines.evaluation.questions import rendered

        [prompt] = rendered(self.loaded.tokenizer, [Row(text, source="a terminal")], self.config)
        prompt = replace(prompt, index=self._asked)
        self._asked += 1
        [batch] = _completed(self.config, self.request, self.loaded, [prompt])
        return list(_records(batch, self._composer))


def _completed(
    config: ExperimentConfig, request: Request, loaded: LoadedModel, prompts: Sequence[Prompt]
) -> Iterator[Completed]:
    from pipelines.evaluation.completions import complete

    temperature = config.generation.temperature if request.temperature is None else request.temperature
    return complete(
        loaded,
        prompts,
        config.generation.model_copy(update={"temperature": temperature}),
        group_size=request.samples,
        max_tokens=request.max_tokens or config.data.max_gen_len,
        seed=config.trainer.evaluation_seed,
        purpose="sample",
    )


def _prompts(config: ExperimentConfig, request: Request, loaded: LoadedModel) -> Sequence[Prompt]:
    from pipelines.evaluation.completions import prompts_of
    from pipelines.evaluation.questions import rendered
    from pipelines.tokens.dataset import TokenDataset

    if request.prompts:
        return rendered(loaded.tokenizer, request.prompts, config)
    tokens = plan.stage_directory(config, "preprocess", plan.preprocess_identity(config))
    dataset = TokenDataset(tokens, "val")
    if not len(dataset):
        dataset = TokenDataset(tokens, "train")
    return prompts_of(dataset, range(min(request.rows, len(dataset))))


def _records(batch: Completed, composer: RewardComposer) -> Iterator[dict[str, Any]]:
    """A record a completion; a reward is null where it abstained or failed."""
    scores = composer.score(batch.contexts)
    errors = {(failure.row, failure.name): failure.error for failure in scores.failures}
    group_size = batch.rollouts.group_size
    for n, context in enumerate(batch.contexts):
        failed = {name: errors[n, name] for name in scores.names if (n, name) in errors}
        yield {
            "prompt": context.prompt_text,
            "sample": n % group_size,
            "completion": context.generated_text,
            "thinking": context.thinking,
            "answer": context.answer,
            "reference": context.reference_completion,
            "reward": _number(scores.totals[n]),
            "rewards": {name: _number(value) for name, value in zip(scores.names, scores.values[n], strict=True)},
            "finish_reason": context.finish_reason,
            "tokens": int(batch.rollouts.lengths[n]),
            "thinking_tokens": context.thinking_tokens,
            "row": batch.prompts[n // group_size].index,
            "source": batch.prompts[n // group_size].row.source,
        } | ({"failures": failed} if failed else {})


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
