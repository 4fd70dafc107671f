"""Prompts and a model give completions; completions give what rewards and evaluators read: regions and their texts.

B prompts with G completions each give N = B * G contexts, group by group, in the order of the rollouts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.algorithms.regions import Tags, tags_for, thinking_length
from pipelines.config import GenerationConfig
from pipelines.rewards.context import RewardContext, completion_context

if TYPE_CHECKING:
    from pipelines.generation.rollouts import Rollouts
    from pipelines.models.load import LoadedModel
    from pipelines.rows.records import Row
    from pipelines.tokens.dataset import TokenDataset


WIDTHS = 8
"""So many times the prompts that decode side by side are handed over together: they take each other's places."""


@dataclass(frozen=True)
class Piece:
    """Tokens whose log-probability is asked for, after others: at least one."""

    context: np.ndarray  # [P] int32, P >= 1
    target: np.ndarray  # [C] int32


@dataclass(frozen=True)
class Prompt:
    """A rendered prompt. `index` names it in its data set, and with it the random numbers of its completions."""

    index: int
    tokens: np.ndarray  # [P] int32
    preopened: bool
    row: Row
    pieces: tuple[Piece, ...] = ()
    """What a benchmark that samples nothing has the model read."""


@dataclass(frozen=True)
class Completed:
    """Some prompts and their completions; `contexts` and the rows of `rollouts` stand group by group."""

    prompts: list[Prompt]
    rollouts: Rollouts
    contexts: list[RewardContext]


def prompts_of(dataset: TokenDataset, indices: Iterable[int]) -> list[Prompt]:
    """The prompts of a tokenised data set at these indices."""
    return [Prompt(i, dataset.prompt_tokens(i), dataset.preopened(i), dataset.row(i)) for i in indices]


def complete(
    loaded: LoadedModel,
    prompts: Sequence[Prompt],
    generation: GenerationConfig,
    *,
    group_size: int,
    max_tokens: int,
    seed: int,
    purpose: str,
    step: int = 0,
    on_finished: Callable[[int], None] | None = None,
) -> Iterator[Completed]:
    """`group_size` completions of each prompt, some prompts at a time, in their order.

    How many at a time changes memory and speed only: a sample is drawn by (seed, purpose, step, prompt, sample).
    on_finished: told how many more completions have ended, while others go on.
    """
    from pipelines.generation.controls import make_controls
    from pipelines.generation.engine import generate
    from pipelines.generation.seeds import row_keys
    from pipelines.generation.width import rows_at_once

    tags, controls = tags_for(loaded.tokenizer, generation), make_controls(loaded.tokenizer, generation)
    tokens = [prompt.tokens for prompt in prompts]
    width = max(1, rows_at_once(loaded.model, tokens, group_size, max_tokens, generation) // group_size)
    tell = None if on_finished is None else lambda ended, _: on_finished(ended.size)
    for start in range(0, len(prompts), WIDTHS * width):
        some = list(prompts[start : start + WIDTHS * width])
        rows, preopened = [prompt.row for prompt in some], [prompt.preopened for prompt in some]
        rollouts = generate(
            loaded.model,
            [prompt.tokens for prompt in some],
            group_size=group_size,
            sampling=generation,
            eos_ids=loaded.eos_ids,
            max_tokens=max_tokens,
            seeds=row_keys(seed, purpose, step, [prompt.index for prompt in some], group_size),
            controls=controls,
            preopened=preopened,
            on_finished=tell,
        )
        contexts = completion_contexts(rollouts, rows, preopened, loaded.tokenizer, tags, step=step)
        yield Completed(some, rollouts, contexts)


def thinking_lengths(rollouts: Rollouts, preopened: Sequence[bool], tokenizer: Any, tags: Tags) -> np.ndarray:
    """Leading thinking tokens of each completion, int32 `[N]`; `preopened` is `[B]`."""
    rows = range(len(rollouts.lengths))
    return np.array(
        [
            thinking_length(
                rollouts.completion(row), tags, bool(preopened[row // rollouts.group_size]), tokenizer.decode
            )
            for row in rows
        ],
        dtype=np.int32,
    )


def completion_contexts(
    rollouts: Rollouts,
    rows: Sequence[Row],
    preopened: Sequence[bool],
    tokenizer: Any,
    tags: Tags,
    *,
    step: int = 0,
    lengths: np.ndarray | None = None,
) -> list[RewardContext]:
    """The N contexts of B rows (`rows` and `preopened` are `[B]`).

    `lengths` are the `thinking_lengths` where the caller has them already, as a trainer does for its masks.
    """
    if lengths is None:
        lengths = thinking_lengths(rollouts, preopened, tokenizer, tags)
    think_tags = (tokenizer.decode(list(tags.open)).strip(), tokenizer.decode(list(tags.close)).strip())
    return [
        completion_context(
            rollouts.completion(n).tolist(),
            int(lengths[n]),
            decode=tokenizer.decode,
            tag_tokens=(tags.open, tags.close),
            answer_tags=tags.answer,
            eos_ids=tokenizer.eos_token_ids,
            think_tags=think_tags,
            thinking_opened=bool(preopened[prompt]),
            finish_reason=rollouts.finish_reasons[n],
            step=step,
            **_asked(rows[prompt]),
        )
        for n, prompt in enumerate(n // rollouts.group_size for n in range(len(lengths)))
    ]


def _asked(row: Row) -> dict[str, Any]:
    """What a context takes over from its row."""
    return {
        "prompt_text": prompt_text(row.prompt),
        "reference_completion": row.completion,
        "system": row.system,
        "test_cases": row.test_cases,
        "meta": row.meta,
    }


def prompt_text(prompt: str | Sequence[Mapping[str, Any]]) -> str:
    """What was asked, as plain text: a string as it is, of chat messages the contents, one a paragraph."""
    if isinstance(prompt, str):
        return prompt
    return "\n\n".join(str(message.get("content", "")) for message in prompt)
