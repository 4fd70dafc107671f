"""The reference of the built-in rewards, as Markdown: `python -m pipelines.rewards.reference > docs/rewards.md`."""

import inspect
import sys
from collections.abc import Iterator

from pipelines.config.reference import table
from pipelines.rewards import BaseReward, RewardRegistry

INTRODUCTION = """\
# Rewards, key by key

What each built-in reward computes, and the keys under its `config:`, as in
`{name: length_penalty, weight: 0.1, config: {target_length: 40, max_length: 60}}`. A misspelled key or a value out of
range is an error before any work. This page is generated from the code in `pipelines/rewards/`;
`python -m pipelines.rewards.reference > docs/rewards.md` writes it again. How rewards become one number:
[rewards](concepts/rewards.md). How to write one: [adding a reward](adding-a-reward.md).
"""


def reference() -> str:
    """The whole page; rewards of plugins are not on it."""
    names = {RewardRegistry.canonical(name) for name in RewardRegistry.names()}
    known = {name: RewardRegistry.get(name) for name in sorted(names)}
    own = {name: reward for name, reward in known.items() if reward.__module__.startswith(f"{__package__}.")}
    return "\n".join([INTRODUCTION, *(line for name, reward in own.items() for line in _reward(name, reward))])


def _reward(name: str, reward: type[BaseReward]) -> Iterator[str]:
    """A heading, what the class says of itself, and its keys."""
    yield f"## `{name}`\n\n{inspect.getdoc(reward)}\n"
    if reward.Config is not None and reward.Config.model_fields:
        yield table(reward.Config)
    else:
        yield "It has no keys.\n"


if __name__ == "__main__":
    sys.stdout.write(reference())
