"""The reference of every key, as Markdown: `python -m pipelines.config.reference > docs/configuration.md`."""

import sys
from collections.abc import Iterator
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin

from pipelines.config.experiment import ExperimentConfig
from pipelines.config.fields import Key, dotted, keys_of
from pipelines.config.section import Section
from pipelines.config.yaml_writer import as_yaml

INTRODUCTION = """\
# Configuration

Every key of a configuration file, its default, and what it means. This page is generated from the fields in
`pipelines/config/`; `python -m pipelines.config.reference > docs/configuration.md` writes it again.

## Where values come from

Later ones win: defaults, then each `--config` file in order (`config.yaml` if none is named), then environment
variables, then `--set`. Sections are merged key by key; a list is replaced as a whole.

```sh
grpo train --config base.yaml --config bigger.yaml      # bigger.yaml wins
GRPO_TRAINER__LEARNING_RATE=1e-5 grpo train             # two underscores between section and key
grpo train --set trainer.loss.type=grpo --set 'rewards=[{name: exact_match}]'
```

`grpo config show` prints the outcome with the origin of each value. Values are read as YAML 1.2: `1e-5` is a
number, `no` and `1:30` are texts, `true` and `false` are the only booleans. Unknown keys, unknown `GRPO_` variables,
keys written twice, `010`, NaN, infinities and tags are errors that name the file, the line and the key.

## Batch arithmetic

An update is one optimizer step (`trainer.num_iterations` of them from the same rollouts, if above 1). It learns from

- B = `trainer.ppo_batch_size` x `trainer.grad_accum_steps` prompts,
- G = `trainer.num_rollout_samples` completions of each, which are compared with one another,
- so N = B x G completions. With the defaults: 64 x 1 prompts x 4 = 256 completions.

How many of them are in memory at a time is `trainer.micro_batch_tokens` in training and
`generation.rollout_batch_size` in sampling. Neither changes the result.
"""

WORDS = {int: "whole number", float: "number", str: "text", bool: "`true` or `false`", NoneType: "`null`"}
BOUNDS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}


def reference() -> str:
    """The whole page."""
    parts = [INTRODUCTION, *_section(ExperimentConfig, (), "The sections")]
    return "\n".join(parts)


def values_of(annotation: Any, metadata: tuple[Any, ...] = ()) -> str:
    """What may be written: `whole number >= 1 or null`."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return values_of(arguments[0], (*arguments[1:], *metadata))
    if origin in (Union, UnionType):
        ordered = sorted(arguments, key=lambda member: member is NoneType)
        return " or ".join(values_of(member, () if member is NoneType else metadata) for member in ordered)
    if origin is Literal:
        return ", ".join(f"`{as_yaml(choice)}`" for choice in arguments)
    if origin in (tuple, list):
        return f"list of {_plural(arguments[0])}"
    if origin is dict or (isinstance(annotation, type) and issubclass(annotation, Section)):
        return "keys and values"
    return " ".join([WORDS[annotation], ", ".join(_bounds(metadata))]).strip()


def _plural(annotation: Any) -> str:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return "items"
    return {"text": "texts"}.get(values_of(annotation), "numbers")


def _bounds(metadata: tuple[Any, ...]) -> Iterator[str]:
    for item in metadata:
        for constraint in getattr(item, "metadata", [item]):
            for name, sign in BOUNDS.items():
                if hasattr(constraint, name):
                    yield f"{sign} {as_yaml(getattr(constraint, name))}"


def _section(section: type[Section], path: tuple[str, ...], title: str) -> Iterator[str]:
    """A heading, the table of the section's keys, then the sections below it."""
    yield f"## {title}\n"
    yield table(section, path)
    for key in keys_of(section, path).values():
        if key.nested is not None:
            many = " (a list; the keys of each item)" if key.many else ""
            yield from _section(key.nested, key.path, f"`{dotted(key.path)}`{many}")


def table(section: type[Section], path: tuple[str, ...] = ()) -> str:
    """The keys of one section, a row each."""
    rows = map(_row, keys_of(section, path).values())
    return "\n".join(["| key | values | default | meaning |", "|---|---|---|---|", *rows, ""])


def _row(key: Key) -> str:
    values = values_of(key.field.annotation, tuple(key.field.metadata))
    cells = (f"`{key.path[-1]}`", values, _default(key), key.doc)
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _default(key: Key) -> str:
    if key.default is ...:
        return "must be given"
    if isinstance(key.default, Section):
        return "its own defaults"
    if key.many:
        items = cast("tuple[Section, ...]", key.default)
        return f"`{as_yaml([item.model_dump(exclude_defaults=True) for item in items])}`"
    return f"`{as_yaml(key.default)}`"


if __name__ == "__main__":
    sys.stdout.write(reference())
