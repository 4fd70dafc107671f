"""From decoded token ids to what rewards and evaluators read: the two regions and their texts.

B prompts with G completions each give N = B * G contexts, group by group, in the order of the rollouts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.algorithms.regions import Tags, thinking_length
from pipelines.rewards.context import RewardContext, completion_context

if TYPE_CHECKING:
    from pipelines.generation.engine import Rollouts
    from pipelines.rows.records import Row


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
            tag_tokens=tags,
            eos_ids=tokenizer.eos_token_ids,
            think_tags=think_tags,
            thinking_opened=bool(preopened[prompt]),
            finish_reason=rollouts.finish_reasons[n],
            step=step,
            **_asked(rows[prompt]),
        )
        for n, prompt in enumerate(np.arange(len(lengths)) // rollouts.group_size)
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
