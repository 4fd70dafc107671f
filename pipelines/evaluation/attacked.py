"""The adversarial texts of `rewards.battery` as contexts: lengths in tokens, each with its row's reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from pipelines.config import ExperimentConfig
from pipelines.evaluation.given import Given, given_contexts
from pipelines.rewards.battery import ATTACKS, TRUNCATED, attack_texts
from pipelines.rewards.context import RewardContext


class Attacked(NamedTuple):
    """The texts of one attack, and the numbers of the rows they were made for."""

    rows: list[int]
    contexts: list[RewardContext]


def attacked(
    tokenizer: Any, golds: Sequence[Given], contexts: Sequence[RewardContext], config: ExperimentConfig
) -> dict[str, Attacked]:
    """Each attack that has a text to offer; `contexts` are the gold completions', rows count within `golds`."""
    found: dict[str, Attacked] = {}
    for name in ATTACKS:
        rows = [(row, text) for row, text in enumerate(attack_texts(name, contexts)) if text is not None]
        texts = [Given(golds[row].row, text, cut=name == TRUNCATED) for row, text in rows]
        if texts:
            found[name] = Attacked([row for row, _ in rows], given_contexts(tokenizer, texts, config))
    return found
