"""Tag biases and the thinking budget: which logit of which step of which row moves by how much."""

from types import SimpleNamespace

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.config import GenerationConfig
from pipelines.errors import ConfigError
from pipelines.generation.controls import make_controls
from pipelines.generation.distribution import adjust

SINGLE = {"open": ["<think>"], "close": ["</think>"], "answer": ["<answer>"]}
SEVERAL = {"open": ["<", "think", ">"], "close": ["</", "think", ">"], "answer": ["<", "answer", ">"]}
TEXTS = ["a", "b", "<think>", "</think>", "<answer>", "<", "</", "think", "answer", ">", ">\n", "a</", "/", "k>", "><"]
TEXTS += ["thi", "n", "n ", "</thinking", "", "think>", "STOP", "S", "TOP!", "</think>b"]
BIASES = {
    "bias_close_think": -2.0,
    "bias_answer_start": 6.0,
    "punish_extra_think_end": -12.0,
    "punish_reopen_think": -5.0,
    "think_end_early_bias": 12.0,
    "min_think_tokens": 2,
    "answer_start_tag": "<answer>",
}


class Tokenizer:
    """A vocabulary of texts; the tags are spelled as told."""

    def __init__(self, spelling: dict[str, list[str]], texts: list[str] = TEXTS) -> None:
        self.texts = texts
        self.tags = {"".join(parts): [texts.index(part) for part in parts] for parts in spelling.values()}

    def __len__(self) -> int:
        return len(self.texts)

    def encode(self, text, *, add_special_tokens):
        assert not add_special_tokens
        return self.tags[text] if text in self.tags else [self.texts.index(text)]

    def decode(self, ids):
        return "".join(self.texts[i] for i in ids)


def steps(controls, rows, preopened):
    """The logits that moved `[N][T]` as {text: shift}, the forced texts, and the step at which a row was stopped."""
    state, zeros = controls.start(preopened), mx.zeros((len(rows), len(TEXTS)))
    moved, forced, stops = [], [], []
    for tokens in zip(*rows, strict=True):
        steering = controls.steer(state)
        logits = np.array(adjust(zeros, shift_ids=steering.shift_ids, shift_values=steering.shift_values))
        moved.append([{TEXTS[i]: float(row[i]) for i in np.flatnonzero(row)} for row in logits])
        free = [-1] * len(rows)
        ids = free if steering.forced_ids is None else np.array(steering.forced_ids).tolist()
        forced.append([TEXTS[i] if i >= 0 else None for i in ids])
        state, stopped = controls.advance(state, mx.array([TEXTS.index(text) for text in tokens]))
        stops.append(np.array(stopped).tolist())
    return SimpleNamespace(moved=turned(moved), forced=turned(forced), stops=turned(stops))


def turned(table):
    return [list(column) for column in zip(*table, strict=True)]


EARLY, LATE, EXTRA, REOPEN, ANSWER = 12.0, -2.0, -12.0, -5.0, 6.0
CASES = {
    "never opened": (SINGLE, False, [("a", {}), ("</think>", {}), ("b", {}), ("<answer>", {}), ("a", {})]),
    "opened by the model": (
        SINGLE,
        False,
        [
            ("a", {}),
            ("<think>", {}),
            ("a", {"</think>": EARLY}),
            ("b", {"</think>": EARLY}),
            ("a", {"</think>": LATE}),
            ("</think>", {"</think>": LATE}),
            ("a", {"</think>": EXTRA, "<think>": REOPEN, "<answer>": ANSWER}),
            ("<answer>", {"</think>": EXTRA, "<think>": REOPEN, "<answer>": ANSWER}),
            ("a", {"</think>": EXTRA, "<think>": REOPEN}),
        ],
    ),
    "opened by the prompt": (
        SINGLE,
        True,
        [
            ("a", {"</think>": EARLY}),
            ("<answer>", {"</think>": EARLY}),
            ("</think>", {"</think>": LATE}),
            ("a", {"</think>": EXTRA, "<think>": REOPEN, "<answer>": ANSWER}),
        ],
    ),
    "closed early, opened again": (
        SINGLE,
        True,
        [
            ("a", {"</think>": EARLY}),
            ("</think>", {"</think>": EARLY}),
            ("<think>", {"</think>": EXTRA, "<think>": REOPEN, "<answer>": ANSWER}),
            ("b", {"</think>": EARLY}),
            ("</think>", {"</think>": LATE}),
            ("<answer>", {"</think>": EXTRA, "<think>": REOPEN, "<answer>": ANSWER}),
            ("<think>", {"</think>": EXTRA, "<think>": REOPEN}),
            ("</think>", {"</think>": LATE}),
            ("b", {"</think>": EXTRA, "<think>": REOPEN}),
        ],
    ),
    "an open tag inside thinking is not a thinking token": (
        SINGLE,
        True,
        [
            ("<think>", {"</think>": EARLY}),
            ("a", {"</think>": EARLY}),
            ("b", {"</think>": EARLY}),
            ("a", {"</think>": LATE}),
        ],
    ),
    "tags of several tokens": (
        SEVERAL,
        False,
        [
            ("<", {}),
            ("think", {}),
            (">", {}),
            ("a", {"</": EARLY}),
            ("</", {"</": EARLY}),
            ("think", {"think": EARLY}),
            ("b", {">": EARLY}),
            ("</", {"</": LATE}),
            ("think", {"think": LATE}),
            (">\n", {">": LATE}),
            ("a", {"</": EXTRA, "<": REOPEN + ANSWER}),
            ("<", {"</": EXTRA, "<": REOPEN + ANSWER}),
            ("answer", {"think": REOPEN, "answer": ANSWER}),
            (">", {"</": EXTRA, "<": REOPEN, ">": ANSWER}),
            ("<", {"</": EXTRA, "<": REOPEN}),
            ("think", {"think": REOPEN}),
        ],
    ),
    "a tag spelled otherwise": (
        SEVERAL,
        True,
        [
            ("a</", {"</": EARLY}),
            ("thi", {"think": EARLY}),
            ("n", {}),  # inside a token of the tag: none of its tokens comes next
            ("k>", {}),
            ("</", {"</": EXTRA, "<": REOPEN + ANSWER}),
            ("think>", {"think": EXTRA, "<": REOPEN + ANSWER}),
        ],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_each_bias_moves_its_logit_at_its_step(case):
    spelling, preopened, script = CASES[case]
    controls = make_controls(Tokenizer(spelling), GenerationConfig(**BIASES))
    assert controls is not None
    assert steps(controls, [[text for text, _ in script]], [preopened]).moved == [[shift for _, shift in script]]


def test_rows_in_different_states_share_a_batch():
    controls = make_controls(Tokenizer(SINGLE), GenerationConfig(**BIASES))
    chosen = [(opened, script[:4]) for spelling, opened, script in CASES.values() if spelling is SINGLE]
    result = steps(controls, [[text for text, _ in script] for _, script in chosen], [opened for opened, _ in chosen])
    assert result.moved == [[shift for _, shift in script] for _, script in chosen]


ONE = {"a": 0, "<think>": 1, "b": 2, "</think>": 3, "<answer>": 4}


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ({"bias_close_think": 3.0}, {(2, "</think>"): 3.0, (3, "</think>"): 3.0}),
        ({"think_end_early_bias": 3.0, "min_think_tokens": 1}, {(2, "</think>"): 3.0}),
        ({"punish_extra_think_end": 3.0}, {(4, "</think>"): 3.0, (5, "</think>"): 3.0}),
        ({"punish_reopen_think": 3.0}, {(4, "<think>"): 3.0, (5, "<think>"): 3.0}),
        ({"bias_answer_start": 3.0, "answer_start_tag": "<answer>"}, {(4, "<answer>"): 3.0}),
    ],
    ids=lambda value: next(iter(value)) if isinstance(next(iter(value)), str) else "",
)
def test_each_bias_by_itself(setting, expected):
    controls = make_controls(Tokenizer(SINGLE), GenerationConfig(**setting))
    moved = steps(controls, [[*ONE, "a"]], [False]).moved[0]
    assert {(t, text): value for t, shifts in enumerate(moved) for text, value in shifts.items()} == expected


@pytest.mark.parametrize(
    "setting",
    [
        {},
        {"bias_answer_start": 1.0},
        {"think_end_early_bias": 1.0},
        {"min_think_tokens": 9},
        {"think_end_tag": "", "max_think_tokens": 3, "bias_close_think": 1.0},
    ],
    ids=["nothing", "no answer tag", "no minimum", "no early bias", "no close tag"],
)
def test_settings_that_can_do_nothing_cost_nothing(setting):
    assert make_controls(None, GenerationConfig(**setting)) is None


SHARED = ["<", "think", "><", "/", "think", ">", "<", "think", ">", "a", "a", "a", "a", "</"]
BUDGETS = {
    "one token": (SINGLE, True, 2, ["a", "b", "</think>", "a"], [None, None, "</think>", None]),
    "not opened": (SINGLE, False, 1, ["a", "b", "a"], [None, None, None]),
    "opened by the model": (SINGLE, False, 1, ["<think>", "b", "</think>"], [None, None, "</think>"]),
    "half an open tag": (SEVERAL, False, 1, ["<", "think", "a", "b"], [None] * 4),
    "several tokens": (SEVERAL, True, 1, ["a", "</", "think", ">", "b"], [None, "</", "think", ">", None]),
    "in the tag's middle": (SEVERAL, True, 2, ["a", "</", "think", ">", "b"], [None, None, "think", ">", None]),
    "off its boundaries": (SEVERAL, True, 2, ["a", "<", "/", "think", ">", "b"], [None, None, "/", "think", ">", None]),
    "in its last letter": (SEVERAL, True, 2, ["</", "thi", "n", "k>", "b"], [None, None, "n", "k>", None]),
    "one token, begun with others": (SINGLE, True, 2, ["a", "</", "</think>", "b"], [None, None, "</think>", None]),
    "a token of two tags is counted as neither": (SEVERAL, True, 4, SHARED, [None] * 13 + ["</"]),
    "opened again": (SINGLE, True, 1, ["a", "</think>", "<think>", "</think>"], [None, "</think>", None, "</think>"]),
}


@pytest.mark.parametrize("case", BUDGETS)
def test_when_the_budget_is_spent_the_close_tag_is_forced(case):
    spelling, preopened, budget, script, expected = BUDGETS[case]
    controls = make_controls(Tokenizer(spelling), GenerationConfig(max_think_tokens=budget))
    result = steps(controls, [script], [preopened])
    assert result.forced == [expected]
    assert result.moved == [[{}] * len(script)]


def test_a_stop_text_is_seen_however_it_is_spelled():
    controls = make_controls(Tokenizer(SINGLE), GenerationConfig(stop=("STOP", "b\n", "ab")))
    rows = [["STOP", "b", "a"], ["S", "TOP!", "a"], ["S", "a", "TOP!"], ["b", ">\n", "b"], ["b", "a", "b"]]
    stops = steps(controls, rows, [False] * 5).stops
    assert stops == [[True, False, False], [False, True, False], [False] * 3, [False] * 3, [False, False, True]]


def test_a_tag_that_the_tokenizer_cannot_spell_is_refused():
    tokenizer = Tokenizer({**SINGLE, "close": ["</think>"]})
    tokenizer.tags["</think>"] = [0]
    with pytest.raises(ConfigError, match="'</think>' cannot be biased") as caught:
        make_controls(tokenizer, GenerationConfig(bias_close_think=1.0))
    assert caught.value.hint
    assert make_controls(tokenizer, GenerationConfig(stop=("STOP",))) is not None


# An independent twin: it looks for tags in the decoded text of every prefix.


def occurrences(text, tag):
    return [(start, start + len(tag)) for start in range(len(text)) if text.startswith(tag, start)]


def begun(text, tag):
    """How many characters of the tag stand at the end of the text."""
    return next(size for size in range(len(tag) - 1, -1, -1) if text.endswith(tag[:size]))


def following(text, spelling):
    """The next token of a tag's own spelling, if the text ends at a boundary of it."""
    tag = "".join(spelling)
    boundaries = {len("".join(spelling[:n])): token for n, token in enumerate(spelling)}
    return boundaries.get(begun(text, tag))


def twin(texts, preopened, spelling, config):
    """What `steps` says of a row, computed from text alone: no automaton, no incremental state but the phase."""
    tags = {name: "".join(parts) for name, parts in spelling.items()}
    thinking, closed, answered, thought = preopened, False, False, []
    moved, forced = [], []
    for t, token in enumerate(texts):
        text, ends = "".join(texts[:t]), np.cumsum([0] + [len(part) for part in texts])
        whole = [span for name in ("open", "close") for span in occurrences(text, tags[name])]
        partial = max(begun(text, tags[name]) for name in ("open", "close"))

        def clear(spans, ends=ends, thought=thought):
            return sum(not any(ends[i] < end and start < ends[i + 1] for start, end in spans) for i in thought)

        shifts, after = {}, closed and not thinking
        certain = clear([*whole, (len(text) - partial, len(text) + 1)])  # a token of no text may be inside, too
        early = config.think_end_early_bias if certain < config.min_think_tokens else config.bias_close_think
        wanted = {
            "close": early if thinking else config.punish_extra_think_end * after,
            "open": config.punish_reopen_think * after,
            "answer": config.bias_answer_start * (after and not answered),
        }
        for name, value in wanted.items():
            if value and following(text, spelling[name]) is not None:
                shifts[following(text, spelling[name])] = shifts.get(following(text, spelling[name]), 0) + value
        moved.append({name: value for name, value in shifts.items() if value})
        spent = thinking and clear(whole) >= config.max_think_tokens
        forced.append(continuation(text, spelling["close"]) if spent else None)
        if thinking:
            thought.append(t)
        longer = text + token
        new = {name: any(end > len(text) for _, end in occurrences(longer, tag)) for name, tag in tags.items()}
        opened = thinking or new["open"]
        closed, thinking = closed or (opened and new["close"]), opened and not new["close"]
        answered = answered or (new["answer"] and closed and not thinking)
    return moved, forced


def continuation(text, spelling):
    if len(spelling) == 1:
        return spelling[0]
    rest = "".join(spelling)[begun(text, "".join(spelling)) :]
    fitting = [token for token in TEXTS if token and rest.startswith(token)]
    return following(text, spelling) or max(fitting, key=len)


likely = st.sampled_from(["<", "</", "think", ">", "</think>", "<think>", "<answer>", "a", "answer", ">\n", "><"])
scripts = st.lists(st.lists(likely | st.sampled_from(TEXTS), min_size=14, max_size=14), min_size=1, max_size=4)


@given(rows=scripts, spelling=st.sampled_from([SINGLE, SEVERAL]), least=st.integers(0, 3), data=st.data())
@settings(max_examples=60)
def test_whatever_is_written_the_twin_that_reads_text_agrees(rows, spelling, least, data):
    most = data.draw(st.integers(max(least, 1), 5))
    config = GenerationConfig(**{**BIASES, "min_think_tokens": least}, max_think_tokens=most)
    preopened = data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows)))
    result = steps(make_controls(Tokenizer(spelling), config), rows, preopened)
    for row, texts in enumerate(rows):
        moved, forced = twin(texts, preopened[row], spelling, config)
        assert result.moved[row] == moved
        assert result.forced[row] == forced
