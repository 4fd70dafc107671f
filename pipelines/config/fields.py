"""The schema as data: every key with its path, docstring, type and default. Help, templates and suggestions read it."""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from typing import Any, get_args

from pydantic.fields import FieldInfo

from pipelines.config.section import Section

LONG_WORD = 6
"""Letters from which a key deep inside says enough by itself to be suggested elsewhere."""
ELSEWHERE = {
    "model_name": "model.model_path",
    "model_name_or_path": "model.model_path",
    "lr": "trainer.learning_rate",
    "steps": "trainer.num_training_steps",
    "max_steps": "trainer.num_training_steps",
    "batch_size": "trainer.ppo_batch_size",
    "gradient_accumulation_steps": "trainer.grad_accum_steps",
    "num_generations": "trainer.num_rollout_samples",
    "group_size": "trainer.num_rollout_samples",
    "kl_coef": "trainer.grpo_beta",
    "warmup_steps": "trainer.lr_schedule_config.warmup",
    "max_prompt_length": "data.max_prompt_len",
    "max_completion_length": "data.max_gen_len",
    "max_new_tokens": "data.max_gen_len",
    "max_tokens": "data.max_gen_len",
}
"""What other programs call a key of ours."""

Path = tuple[str | int, ...]
"""Where a value is: `("trainer", "loss", "type")`, with positions for items of a list."""


@dataclass(frozen=True)
class Key:
    """One key: `nested` is the section below it, if any, and `many` says that it holds a list of those."""

    path: tuple[str, ...]
    field: FieldInfo
    nested: type[Section] | None
    many: bool

    @property
    def doc(self) -> str:
        """The attribute docstring on one line."""
        return " ".join((self.field.description or "").split())

    @property
    def sentence(self) -> str:
        """The docstring's first sentence, without its full stop."""
        return self.doc.split(". ", 1)[0].rstrip(".")

    @property
    def default(self) -> Any:
        """The default value, `...` for a key that must be given."""
        return ... if self.field.is_required() else self.field.get_default(call_default_factory=True)


def dotted(path: Path) -> str:
    """`rewards.0.weight` for `("rewards", 0, "weight")`; parts that could not be seen or told apart are quoted."""
    return ".".join(map(_part, path))


def _part(part: str | int) -> str:
    text = str(part)
    return text if text and text.isprintable() and text == text.strip() and "." not in text else ascii(part)


@cache
def keys_of(section: type[Section], prefix: tuple[str, ...] = ()) -> dict[str, Key]:
    """The keys of one section by name, in the order of the file that defines it."""
    keys: dict[str, Key] = {}
    for name, field in section.model_fields.items():
        nested = _section_in(field.annotation)
        many = nested is not None and any(... in get_args(part) for part in _parts(field.annotation))
        keys[name] = Key((*prefix, name), field, nested, many)
    return keys


def walk(section: type[Section], prefix: tuple[str, ...] = ()) -> Iterator[Key]:
    """Every key below a section, parents first; the items of a list share the path of the list."""
    for key in keys_of(section, prefix).values():
        yield key
        if key.nested is not None:
            yield from walk(key.nested, key.path)


def find(root: type[Section], path: Path) -> Key | None:
    """The key that a path leads to or into: `rewards.0.config.x` leads into `rewards.config`."""
    section: type[Section] | None = root
    key: Key | None = None
    for part in path:
        if isinstance(part, int):
            continue
        if section is None:
            return key
        key = keys_of(section, key.path if key else ()).get(part)
        if key is None:
            return None
        section = key.nested
    return key


def suggest(root: type[Section], path: Path) -> str:
    """A hint for an unknown key: what was meant, or else what there is in its section."""
    word = str(path[-1])
    inside = (*path[:-1], *word.split("."))
    if len(inside) > len(path) and find(root, inside):
        return f"write sections inside each other, as in {{{word.replace('.', ': {')}: ...{'}' * word.count('.')}}}"
    meant = guess(root, path)
    if meant:
        return f"did you mean {meant}?" + ("" if word.isascii() else f" {word!a} only looks like it")
    section = _section_at(root, path[:-1])
    if section is None:
        return f"{dotted(path[:-1])} has no keys below it"
    return f"known here are {', '.join(dotted((*path[:-1], name)) for name in section.model_fields)}"


def guess(root: type[Section], path: Path) -> str:
    """The dotted key that was probably meant: a close name in the same section, else anywhere outside lists, or "".

    What has the words of a key, or a name that other programs give it, comes first.
    """
    word, whole = _plain(str(path[-1])), _plain("_".join(map(str, path)))
    keys = [key.path for key in walk(root) if not inside_list(root, key.path)]
    joined = {"_".join(key): dotted(key) for key in keys}
    last = {key[-1]: dotted(key) for key in reversed(keys) if not key[2:] or len(key[-1]) >= LONG_WORD}
    same = joined.get(whole) or last.get(whole) or ELSEWHERE.get(whole) or ELSEWHERE.get(word)
    if same:
        return same
    section = _section_at(root, path[:-1])
    close = get_close_matches(word, section.model_fields, n=1) if section else []
    if close:
        return dotted((*path[:-1], close[0]))
    for names, wanted, cutoff in ((joined, whole, 0.9), (last, word, 0.75)):
        close = get_close_matches(wanted, names, n=1, cutoff=cutoff)
        if close:
            return names[close[0]]
    return ""


def _plain(word: str) -> str:
    """A word as keys are spelt: small letters, of the usual width, with underscores."""
    return re.sub(r"[-\s]", "_", unicodedata.normalize("NFKC", word).strip().casefold())


def inside_list(root: type[Section], path: Path) -> bool:
    """Whether a path leads into the items of a list of sections."""
    above = (find(root, path[:length]) for length in range(1, len(path)))
    return any(key is not None and key.many for key in above)


def _section_at(root: type[Section], path: Path) -> type[Section] | None:
    key = find(root, path) if path else None
    return key.nested if key else None if path else root


def _parts(annotation: Any) -> Iterator[Any]:
    yield annotation
    for argument in get_args(annotation):
        yield from _parts(argument)


def _section_in(annotation: Any) -> type[Section] | None:
    found = (part for part in _parts(annotation) if isinstance(part, type) and issubclass(part, Section))
    return next(found, None)
