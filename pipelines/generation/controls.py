"""Tags steer a rollout: biases on the think and answer tags, a budget of thinking tokens, texts that end a completion.

Every row carries its own state: how much of each tag has been written, whether thinking is open or was closed, how many
thinking tokens there are. It is advanced for all rows at once with gathers and masks; nothing waits for the device.

    thinking            close tag                                  open tag             answer tag
    never opened        -                                          -                    -
    open                bias_close_think, or think_end_early_bias  -                    -
                        below min_think_tokens
    closed              punish_extra_think_end                     punish_reopen_think  bias_answer_start, until it came
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np

from pipelines.config import GenerationConfig
from pipelines.generation.automaton import Automaton, make_automaton
from pipelines.generation.vocabulary import token_bytes

OPEN, CLOSE, ANSWER = range(3)
"""Columns of the tags; those of the stop texts follow."""


class State(NamedTuple):
    """What is known of N rows."""

    matched: mx.array  # [N, A] int32, rows of the table: how much of each text has been written
    pending: mx.array  # [N, 2] int32, tokens that hold what there is of an open or close tag
    thinking: mx.array  # [N] bool, open now
    closed: mx.array  # [N] bool, was closed at least once
    answered: mx.array  # [N] bool, the answer tag has come after thinking
    thought_tokens: mx.array  # [N] int32, since thinking was opened; whole tags not counted

    def select(self, rows: mx.array) -> "State":
        """Some of the rows."""
        return State(*(array[rows] for array in self))

    def extended(self, other: "State") -> "State":
        """These rows, and those behind them."""
        return State(*(mx.concatenate(list(both)) for both in zip(self, other, strict=True)))


class Steering(NamedTuple):
    """What is done to the next token of N rows."""

    shift_ids: mx.array | None = None  # [N, K] int32, a tag's next token; None without a bias
    shift_values: mx.array | None = None  # [N, K] float32, what is added to its logit; 0 = nothing
    forced_ids: mx.array | None = None  # [N] int32, the token that must come, -1 = free; None without a budget


@dataclass(frozen=True)
class Controls:
    """The tables of the automata of A texts, one below the other: R states in all, V + 1 columns."""

    config: GenerationConfig
    budget_tokens: int  # 0 = none
    table: mx.array  # [R, V + 1]: 4 * state after the token + 2 * completed + inside (see `Automaton`)
    starts: mx.array  # [A] int32, row of each text's first state
    next_tokens: mx.array  # [R] int32, -1 off a tag's boundaries
    forced_tokens: mx.array  # [R] int32, what continues the close tag in any case
    steered: tuple[int, ...]  # the tags that have a bias

    def start(self, preopened: Sequence[bool] | np.ndarray) -> State:
        """Before the first token; `preopened` `[N]`: the prompt ended inside an open tag."""
        rows = len(preopened)
        matched = mx.broadcast_to(self.starts, (rows, self.starts.size))
        never = mx.zeros(rows, mx.bool_)
        thinking = mx.array(np.asarray(preopened, bool))
        return State(matched, mx.zeros((rows, 2), mx.int32), thinking, never, never, mx.zeros(rows, mx.int32))

    def steer(self, state: State) -> Steering:
        """Biases and forced tokens for what is sampled next."""
        forced = None
        if self.budget_tokens:
            spent = state.thinking & (state.thought_tokens >= self.budget_tokens)
            forced = mx.where(spent, self.forced_tokens[state.matched[:, CLOSE]], -1)
        if not self.steered:
            return Steering(forced_ids=forced)
        ids = mx.stack([self.next_tokens[state.matched[:, tag]] for tag in self.steered], axis=1)
        values = mx.stack([self._bias(tag, state) for tag in self.steered], axis=1)
        return Steering(mx.maximum(ids, 0), mx.where(ids >= 0, values, 0.0), forced)

    def _bias(self, tag: int, state: State) -> mx.array:
        """float32 `[N]`, for rows that stand at a boundary of the tag."""
        config, after = self.config, state.closed & ~state.thinking
        if tag == OPEN:
            return mx.where(after, config.punish_reopen_think, 0.0)
        if tag == ANSWER:
            return mx.where(after & ~state.answered, config.bias_answer_start, 0.0)
        certain = state.thought_tokens - state.pending.max(axis=1)  # the others may still become a tag
        early = certain < config.min_think_tokens
        while_open = mx.where(early, config.think_end_early_bias, config.bias_close_think)
        return mx.where(state.thinking, while_open, mx.where(after, config.punish_extra_think_end, 0.0))

    def advance(self, state: State, tokens: mx.array) -> tuple[State, mx.array]:
        """The state after `tokens` `[N]`, and which rows have completed a stop text, bool `[N]`."""
        column = mx.minimum(tokens, self.table.shape[1] - 1)
        cells = self.table[state.matched, column[:, None]].astype(mx.int32)  # [N, A]
        matched, completed, inside = cells // 4, cells // 2 % 2 == 1, cells % 2 == 1
        opened, closed = completed[:, OPEN], completed[:, CLOSE]
        held = mx.where(inside[:, :2], 1, state.pending + 1)  # tokens of what is matched now, or was completed
        of_tags = mx.where(completed[:, :2], held, 0).max(axis=1)
        begun = matched[:, :2] != self.starts[:2]
        pending = mx.where(begun & ~(opened | closed)[:, None], held, 0)
        thought = state.thought_tokens + mx.where(state.thinking, 1 - of_tags, 0)
        was_open = state.thinking | opened
        thinking, ever = was_open & ~closed, state.closed | (was_open & closed)
        answered = state.answered | (completed[:, ANSWER] & ever & ~thinking)
        stopped = completed[:, ANSWER + 1 :].any(axis=1)
        return State(matched, pending, thinking, ever, answered, thought), stopped


def make_controls(tokenizer: Any, config: GenerationConfig) -> Controls | None:
    """The controls that the configuration asks for; None if it sets no bias, no budget and no stop text.

    Raises ConfigError for a tag with a bias, or a budget, that the tokenizer cannot spell.
    """
    steered, budget = _steered(config), config.max_think_tokens or 0 if config.think_end_tag else 0
    if not (steered or budget or config.stop):
        return None
    vocabulary = token_bytes(tokenizer)
    texts = (config.think_start_tag, config.think_end_tag, config.answer_start_tag, *config.stop)
    automata = [make_automaton(text, vocabulary) for text in texts]
    starts = np.cumsum([0, *(len(automaton.next_state) for automaton in automata)], dtype=np.int32)
    following = [np.full(len(automaton.next_state), -1, np.int32) for automaton in automata]
    for tag in {*steered, *([CLOSE] if budget else [])}:
        following[tag] = automata[tag].next_tokens(tokenizer.encode(texts[tag], add_special_tokens=False))
    forced = following.copy()
    if budget:
        forced[CLOSE] = automata[CLOSE].forced_tokens(following[CLOSE], vocabulary)
    return Controls(
        config=config,
        budget_tokens=budget,
        table=mx.array(_stacked(automata, starts)),
        starts=mx.array(starts[:-1]),
        next_tokens=mx.array(np.concatenate(following)),
        forced_tokens=mx.array(np.concatenate(forced)),
        steered=steered,
    )


def _steered(config: GenerationConfig) -> tuple[int, ...]:
    """The tags that a configuration biases. A bias that cannot apply does not count."""
    early = config.think_end_early_bias if config.min_think_tokens else 0.0
    biases = {
        OPEN: (config.think_start_tag, (config.punish_reopen_think,)),
        CLOSE: (config.think_end_tag, (config.bias_close_think, early, config.punish_extra_think_end)),
        ANSWER: (config.answer_start_tag, (config.bias_answer_start,)),
    }
    return tuple(tag for tag, (text, values) in biases.items() if text and any(values))


def _stacked(automata: Sequence[Automaton], starts: np.ndarray) -> np.ndarray:
    """The packed table `[R, V + 1]`, in the smallest unsigned type that holds it."""
    blocks = [
        4 * (automaton.next_state + start) + 2 * automaton.completed + automaton.inside
        for automaton, start in zip(automata, starts[:-1], strict=True)
    ]
    return np.concatenate(blocks).astype(np.uint16 if 4 * int(starts[-1]) < 2**16 else np.uint32)
