"""Texts that deserve nothing: what a model finds when it optimises the reward instead of the task.

Each attack turns the gold completions of a data set into one text per row, None where it has none to offer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from pipelines.rewards.answers import same_answer
from pipelines.rewards.context import RewardContext
from pipelines.rewards.spelling import plain

CONSTANT, TRUNCATED = "constant answer", "truncated"
Golds = Sequence[RewardContext]
Texts = list[str | None]

SPAM_ANSWERS = 20
REPEATS = 40
ATTACKED_ROWS = 100
"""How many gold completions adversarial texts are made of; the most common answer is that of all of them."""


def empty(golds: Golds) -> Texts:
    """Nothing at all."""
    return [""] * len(golds)


def prompt_echo(golds: Golds) -> Texts:
    """The prompt, word for word."""
    return [gold.prompt_text for gold in golds]


def truncated(golds: Golds) -> Texts:
    """The first half of the gold completion, cut off by the length limit."""
    return [gold.generated_text[: len(gold.generated_text) // 2] for gold in golds]


def wrong_answer(golds: Golds) -> Texts:
    """The gold completion with the final answer of the next row whose answer differs."""
    return [_with_answer(gold, _other_answer(golds, row)) for row, gold in enumerate(golds)]


def answer_spam(golds: Golds) -> Texts:
    """Many answers of the data set in a row, the right one last."""
    known = list(dict.fromkeys(gold.answer for gold in golds if gold.answer))
    return [_spam(known, gold.answer) if len(known) > 1 else None for gold in golds]


def constant_answer(golds: Golds) -> Texts:
    """One gold completion for every prompt: one with the most common answer. What it earns is the floor of the task."""
    if not golds:
        return []
    common = Counter(plain(gold.answer) for gold in golds).most_common(1)[0][0]
    chosen = next(gold for gold in golds if plain(gold.answer) == common)
    return [chosen.generated_text] * len(golds)


def tags_only(golds: Golds) -> Texts:
    """A think block with nothing in it and nothing after it."""
    return ["".join(gold.think_tags) for gold in golds]


def repeated_answer(golds: Golds) -> Texts:
    """The right answer, over and over."""
    return [" ".join([gold.answer] * REPEATS) if gold.answer else None for gold in golds]


def repeated_prompt(golds: Golds) -> Texts:
    """The first words of the prompt, over and over."""
    return [" ".join([*gold.prompt_text.split()[:3]] * REPEATS) for gold in golds]


ATTACKS: dict[str, Callable[[Golds], Texts]] = {
    "empty": empty,
    "prompt echo": prompt_echo,
    TRUNCATED: truncated,
    "wrong answer": wrong_answer,
    "answer spam": answer_spam,
    CONSTANT: constant_answer,
    "tags only": tags_only,
    "repeated answer": repeated_answer,
    "repeated prompt": repeated_prompt,
}


def attack_texts(name: str, golds: Golds) -> Texts:
    """The texts of one attack on the first ATTACKED_ROWS gold completions."""
    return ATTACKS[name](golds if name == CONSTANT else golds[:ATTACKED_ROWS])[:ATTACKED_ROWS]


def _spam(known: list[str], right: str) -> str:
    wrong = [answer for answer in known if answer != right]
    return " ".join([*wrong[: SPAM_ANSWERS - 1], right])


def _other_answer(golds: Golds, row: int) -> str | None:
    own = golds[row].answer
    others = (golds[(row + step) % len(golds)].answer for step in range(1, len(golds)))
    return next((other for other in others if other and not same_answer(other, own)), None)


def _with_answer(gold: RewardContext, answer: str | None) -> str | None:
    if answer is None:
        return None
    thinking, close, _ = gold.generated_text.rpartition(gold.think_tags[1])
    return f"{thinking}{close}{answer}"
