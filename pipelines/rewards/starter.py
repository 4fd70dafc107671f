"""A reward to start from: the text of a commented file, and of a test that passes as it is written."""

from __future__ import annotations

import re
from pathlib import Path

from pipelines.errors import ConfigError
from pipelines.rewards.registry import RewardRegistry

NAME = re.compile(r"[a-z][a-z0-9_]*")

REWARD = '''\
"""@NAME@: a reward of your own. `grpo inspect-rewards` shows what it pays for; look at that before you train on it."""

from pydantic import Field

from pipelines.config import Section
from pipelines.rewards import BaseReward, RewardRegistry


@RewardRegistry.register("@NAME@")
class @CLASS@(BaseReward):
    """Example: 1 for an answer of up to max_words words, then max_words / words; 0 for an empty one."""

    # Longer than this, by the clock, for one completion counts as a failure. The default is 10.
    time_limit_seconds = 5.0

    # The keys under `config:`, with their defaults and limits. A misspelled key is then an error that names it.
    # Without a Config class any mapping is taken as it is.
    class Config(Section):
        max_words: int = Field(30, ge=1)
        """The most words that cost nothing."""

    def __init__(self, config=None):
        super().__init__(config)
        self.settings = self.Config.model_validate(self.config)

    def compute(self, context):
        # context.prompt_text, .generated_text, .thinking, .answer, .reference_answer, .test_cases, .meta,
        # .thinking_tokens, .answer_tokens, .finish_reason: see docs/adding-a-reward.md. Depend on nothing else.
        if not self.validate_inputs(context):
            return 0.0  # there is no text at all
        if context.finish_reason == "length":
            return None  # abstains: the other rewards carry the row. An exception is never a quiet 0 either
        words = len(context.answer.split())
        if not words:
            return {"reward": 0.0, "reason": "no answer"}
        # "reward" is the number, best from 0 to 1; the rest is shown by `grpo inspect-rewards` as the reason for it.
        return {"reward": min(1.0, self.settings.max_words / words), "words": words}
'''

TEST = '''\
"""What @NAME@ pays for. Run with `pytest @TEST_FILE@`."""

from pathlib import Path

import pytest

from pipelines.errors import ConfigError
from pipelines.plugins import load_plugins
from pipelines.rewards import RewardContext, RewardRegistry

load_plugins([Path(__file__).with_name("@FILE@")])  # as training does


def score(text, **config):
    result = RewardRegistry.create("@NAME@", config).compute(RewardContext(generated_text=text))
    return result["reward"] if isinstance(result, dict) else result


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("42", 1.0),
        ("<think>a long thought that does not count</think>42", 1.0),
        ("one two three four", 0.5),
        ("<think>never closed", 0.0),
        ("", 0.0),
        (" \\n", 0.0),
        ("\\u56db\\u5341\\u4e8c \\U0001f600", 1.0),
    ],
)
def test_what_it_pays_for(text, expected):
    assert score(text, max_words=2) == pytest.approx(expected)


def test_it_abstains_where_the_limit_cut_it_off():
    context = RewardContext(generated_text="42", finish_reason="length")
    assert RewardRegistry.create("@NAME@").compute(context) is None


def test_a_misspelled_key_is_an_error():
    with pytest.raises(ConfigError, match="no such key"):
        score("42", max_word=2)
'''


def starter(name: str, file: Path) -> dict[Path, str]:
    """The two files, by path. Raises ConfigError for a name that cannot be a new reward's."""
    if not NAME.fullmatch(name):
        raise ConfigError(f"{name!r} cannot name a reward", hint="use small letters, digits and _, a letter first")
    if name in RewardRegistry.names():
        raise ConfigError(f"there is a built-in reward called {name!r}", hint="choose a name of its own")
    if file.suffix != ".py":
        raise ConfigError(f"{file} is not a Python file", hint="its name must end in .py")
    test = file.with_name(f"test_{file.name}")
    words = {
        "NAME": name,
        "CLASS": "".join(part.capitalize() for part in name.split("_")),
        "FILE": file.name,
        "TEST_FILE": test.as_posix(),
    }
    return {path: _filled(text, words) for path, text in ((file, REWARD), (test, TEST))}


def _filled(text: str, words: dict[str, str]) -> str:
    return re.sub("@([A-Z_]+)@", lambda match: words[match[1]], text)
