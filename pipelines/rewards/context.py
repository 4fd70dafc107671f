"""What a reward is shown: one completion, its two regions, and what was asked.

The regions are cut once, on token ids, by `algorithms.regions`; rewards never look for the cut themselves.
The texts of the regions come without their tags and without white space around them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

DEFAULT_TAGS = ("<think>", "</think>")
NO_TAGS = ("", "")
UNCOUNTED = -1
UNASKED, UNCUT = cast("bool", None), cast("str", None)
"""Left out by who made the context by hand; never seen by a reward."""


@dataclass(frozen=True)
class RewardContext:
    """One completion with all that a reward may use.

    Lengths are in tokens, tags and end-of-text not counted. In a context made by hand, regions that are left out
    are cut from `generated_text`, lengths that are left out are counted in words, and thinking counts as opened if
    `prompt_text` ends with the open tag.
    """

    prompt_text: str = ""
    generated_text: str = ""
    thinking: str = UNCUT
    answer: str = UNCUT
    reference_completion: str | None = None
    reference_answer: str | None = None
    system: str | None = None
    test_cases: Sequence[Any] = ()
    meta: Mapping[str, Any] = field(default_factory=dict[str, Any])
    thinking_tokens: int = UNCOUNTED
    answer_tokens: int = UNCOUNTED
    finish_reason: str = "stop"
    step: int = 0
    thinking_opened: bool = UNASKED
    """The prompt ended inside an open think tag, so the completion begins with thinking."""
    think_tags: tuple[str, str] = DEFAULT_TAGS

    def __post_init__(self) -> None:
        if self.thinking_opened is UNASKED:
            opened = self.prompt_text.rstrip().endswith(self.think_tags[0])
            object.__setattr__(self, "thinking_opened", opened)
        regions = self.thinking, self.answer
        if regions == (UNCUT, UNCUT):
            regions = split_regions(self.generated_text, self.think_tags, opened=self.thinking_opened)
        object.__setattr__(self, "thinking", regions[0] or "")
        object.__setattr__(self, "answer", regions[1] or "")
        if self.thinking_tokens == UNCOUNTED:
            object.__setattr__(self, "thinking_tokens", len(self.thinking.split()))
        if self.answer_tokens == UNCOUNTED:
            object.__setattr__(self, "answer_tokens", len(self.answer.split()))

    @property
    def length_tokens(self) -> int:
        return self.thinking_tokens + self.answer_tokens


def split_regions(text: str, tags: tuple[str, str] = DEFAULT_TAGS, *, opened: bool = False) -> tuple[str, str]:
    """Cut a text that has no token ids (a reference, say) into thinking and answer: after the last close tag.

    Without a close tag it is all thinking if thinking was opened, else all answer.
    """
    before, close, after = text.rpartition(tags[1])
    if not close:
        before, after = (text, "") if opened or tags[0] in text else ("", text)
    return before.strip().removeprefix(tags[0]).strip(), after.strip()


def between(answer: str, tags: tuple[str, str]) -> str:
    """What stands between the first open tag of an answer and the close tag after it; a missing tag is no bound."""
    start, end = tags
    if start and start in answer:
        answer = answer.partition(start)[2]
    return (answer.partition(end)[0] if end else answer).strip()


def completion_context(
    tokens: Sequence[int],
    thinking_length: int,
    *,
    decode: Callable[[list[int]], str],
    tag_tokens: tuple[Sequence[int], Sequence[int]] = ((), ()),
    eos_ids: Collection[int] = (),
    think_tags: tuple[str, str] = DEFAULT_TAGS,
    thinking_opened: bool = False,
    answer_tags: tuple[str, str] = NO_TAGS,
    reference_completion: str | None = None,
    **fields: Any,
) -> RewardContext:
    """The context of a completion `[C]` whose first `thinking_length` tokens are thinking.

    `fields` are passed on as they are: prompt_text, system, test_cases, meta, finish_reason, step.
    """
    kept = list(tokens)
    while kept and kept[-1] in eos_ids:
        kept.pop()
    region, rest = kept[:thinking_length], kept[thinking_length:]
    reference = None
    if reference_completion is not None:
        reference = between(split_regions(reference_completion, think_tags)[1], answer_tags)
    text = decode(kept)
    before, after = (decode(region), decode(rest)) if region else ("", text)
    return RewardContext(
        generated_text=text,
        thinking=before.strip().removesuffix(think_tags[1]).strip().removeprefix(think_tags[0]).strip(),
        answer=between(after, answer_tags),
        thinking_tokens=_inner_length(region, tag_tokens),
        answer_tokens=len(rest),
        thinking_opened=thinking_opened,
        think_tags=think_tags,
        reference_completion=reference_completion,
        reference_answer=reference,
        **fields,
    )


def _inner_length(region: list[int], tag_tokens: tuple[Sequence[int], Sequence[int]]) -> int:
    """Tokens of the thinking region without the tags around it."""
    opening, closing = map(list, tag_tokens)
    starts = bool(opening) and region[: len(opening)] == opening
    ends = bool(closing) and region[-len(closing) :] == closing
    return max(0, len(region) - len(opening) * starts - len(closing) * ends)
