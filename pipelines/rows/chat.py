"""From a row to the text and the tokens a model is shown: the chat template, once, and never again.

Token ids are canonical from here on. A prompt is rendered with the tokenizer's chat template (plain text where it has
none); a completion is tokenised on its own, without special tokens, and ends with EOS. A template that ends the prompt
inside an open think tag is noticed, by what it adds for the assistant to continue: tags in messages do not count.
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from pipelines.errors import DataError, ModelError
from pipelines.rows.records import Message, Row, is_blank

DEFAULT_TAGS = ("<think>", "</think>")
TEMPLATE_ERRORS = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What a template raises by what it computes, besides jinja's own errors."""


@dataclass(frozen=True)
class EncodedRow:
    """The tokens of a row; `completion` ends with EOS and is empty where the row has none."""

    prompt: list[int]
    completion: list[int]
    preopened: bool


def messages_for(row: Row, system_prompt: str | None) -> list[Message]:
    """The conversation: the row's own system message, in or beside its prompt, wins over the configured one."""
    messages = [{"role": "user", "content": row.prompt}] if isinstance(row.prompt, str) else row.prompt
    system = row.system or system_prompt
    if system and not any(message["role"] == "system" for message in messages):
        return [{"role": "system", "content": system}, *messages]
    return messages


class ChatEncoder:
    """One tokenizer with its template, ready for many rows. `tags` open and close thinking."""

    def __init__(self, tokenizer: Any, system_prompt: str | None = None, tags: tuple[str, str] = DEFAULT_TAGS) -> None:
        self.tokenizer = tokenizer
        self.system_prompt = system_prompt
        self.tags = tags
        # The wrapper of mlx-lm knows templates that are not a string; its inner tokenizer encodes batches.
        self.has_template = bool(getattr(tokenizer, "has_chat_template", tokenizer.chat_template))
        self.batch_encode = getattr(tokenizer, "_tokenizer", tokenizer)
        self._rust = _rust_tokenizer(self.batch_encode)
        self._renders_batches = getattr(tokenizer, "_chat_template", None) is None and _plain_renderer(
            self.batch_encode
        )
        if tokenizer.eos_token_id is None:
            raise ModelError("the tokenizer has no EOS token", hint="name eos_token in tokenizer_config.json")
        self.eos_id = int(tokenizer.eos_token_id)
        self.eos: str = tokenizer.convert_ids_to_tokens(self.eos_id)
        # Some tokenizers name an ordinary mark as their unknown token, which then says nothing.
        marks = {tokenizer.eos_token_id, tokenizer.bos_token_id}
        self.unknown_id: int | None = None if tokenizer.unk_token_id in marks else tokenizer.unk_token_id
        self._usual_ending = self._ending([{"role": "user", "content": "x"}]) if self.has_template else ""

    @cached_property
    def vocabulary_size(self) -> int:
        """One more than the largest token id."""
        return max(self.tokenizer.get_vocab().values()) + 1

    @property
    def pad_id(self) -> int:
        """The pad token, or EOS where the tokenizer names none."""
        return self.eos_id if self.tokenizer.pad_token_id is None else int(self.tokenizer.pad_token_id)

    def render(self, row: Row) -> str:
        """The text of the prompt, up to where the completion begins."""
        messages = messages_for(row, self.system_prompt)
        if not self.has_template:
            return "\n\n".join(message["content"] for message in messages)
        return self._apply(messages, row.source, add_generation_prompt=True)

    def preopened(self, row: Row, rendered: str) -> bool:
        """Whether what the template added for the assistant, at the end of `rendered`, leaves thinking open."""
        if not self.has_template or not self.tags[0]:
            return False
        ending = self._usual_ending
        if not ending or not rendered.endswith(ending):
            ending = self._ending(messages_for(row, self.system_prompt), row.source)
        return ending.rfind(self.tags[0]) > ending.rfind(self.tags[1])

    def without_end(self, row: Row) -> Row:
        """The row, its completion without an end token that somebody wrote behind it: each gets one here."""
        text = (row.completion or "").rstrip()
        if not text.endswith(self.eos) or is_blank(bare := text.removesuffix(self.eos)):
            return row
        return replace(row, completion=bare)

    def encode(self, rows: Sequence[Row]) -> list[EncodedRow]:
        """Tokens of many rows, each side in one call of the tokenizer."""
        rendered = self._render_all(rows)
        preopened = [self.preopened(row, text) for row, text in zip(rows, rendered, strict=True)]
        prompts = self._tokens(rendered, add_special_tokens=not self.has_template)
        texts = [self._completion(row, opened) for row, opened in zip(rows, preopened, strict=True)]
        completions = self._tokens(texts, add_special_tokens=False)
        return [
            EncodedRow(prompt, [] if row.completion is None else [*completion, self.eos_id], opened)
            for row, prompt, completion, opened in zip(rows, prompts, completions, preopened, strict=True)
        ]

    def _render_all(self, rows: Sequence[Row]) -> list[str]:
        """As `render` for each row. One call is faster than many; what it refuses is looked for row by row."""
        from jinja2.exceptions import TemplateError

        if self.has_template and self._renders_batches and rows:
            conversations = [messages_for(row, self.system_prompt) for row in rows]
            with suppress(TemplateError, *TEMPLATE_ERRORS):
                return self.tokenizer.apply_chat_template(conversations, add_generation_prompt=True, tokenize=False)
        return [self.render(row) for row in rows]

    def _completion(self, row: Row, preopened: bool) -> str:
        """The completion's text; an open tag that the prompt has already is not said twice."""
        text = row.completion or ""
        if preopened and text.lstrip().startswith(self.tags[0]):
            text = text.lstrip()[len(self.tags[0]) :]
            return text.lstrip("\n") if self._usual_ending.endswith("\n") else text
        return text

    def _tokens(self, texts: list[str], *, add_special_tokens: bool) -> list[list[int]]:
        if not texts:
            return []
        if self._rust is None:
            encoded = self.batch_encode(
                texts,
                add_special_tokens=add_special_tokens,
                return_attention_mask=False,
                return_token_type_ids=False,
                verbose=False,  # long texts are counted, dropped or cut later
            )["input_ids"]
        else:
            self._rust.no_truncation()
            self._rust.no_padding()
            found = self._rust.encode_batch_fast(texts, add_special_tokens=add_special_tokens)
            encoded = [each.ids for each in found]
        # A plain prompt may get BOS; an EOS at its end would tell the model that all is said.
        return [ids[:-1] if add_special_tokens and ids and ids[-1] == self.eos_id else ids for ids in encoded]

    def _ending(self, messages: list[Message], source: str = "") -> str:
        """What the template adds to a conversation for the assistant to continue."""
        without = self._apply(messages, source, add_generation_prompt=False)
        full = self._apply(messages, source, add_generation_prompt=True)
        return full[_common_length(without, full) :]

    def _apply(self, messages: list[Message], source: str, *, add_generation_prompt: bool) -> str:
        from jinja2.exceptions import TemplateError

        try:
            return self.tokenizer.apply_chat_template(
                messages, add_generation_prompt=add_generation_prompt, tokenize=False
            )
        except (TemplateError, *TEMPLATE_ERRORS) as error:
            where = f"{source}: " if source else ""
            raise DataError(
                f"{where}the model's chat template refuses this conversation: {error}",
                hint="some templates know no system message, or want user and assistant to take turns",
            ) from error


def _rust_tokenizer(tokenizer: Any) -> Any:
    """What a fast tokenizer of `transformers` calls, where it adds nothing of its own to it; None for any other.

    Its `encode_batch_fast` gives the same ids without the offsets that nobody asks for, in half the time.
    """
    from transformers import PreTrainedTokenizerFast

    plain = isinstance(tokenizer, PreTrainedTokenizerFast) and not tokenizer.split_special_tokens
    if not plain or any(_overrides(tokenizer, PreTrainedTokenizerFast, name) for name in ("__call__", "_encode_plus")):
        return None
    return tokenizer.backend_tokenizer


def _plain_renderer(tokenizer: Any) -> bool:
    """Whether chat templates are rendered by `transformers`, which takes many conversations at once."""
    from transformers import PreTrainedTokenizerBase

    return not _overrides(tokenizer, PreTrainedTokenizerBase, "apply_chat_template")


def _overrides(tokenizer: Any, base: type, name: str) -> bool:
    return getattr(type(tokenizer), name, None) is not getattr(base, name)


def _common_length(one: Iterable[str], other: Iterable[str]) -> int:
    """How many leading characters two texts share."""
    length = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        length += 1
    return length
