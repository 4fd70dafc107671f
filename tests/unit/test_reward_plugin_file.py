"""A user's file, as users write them: found by its path, made from its configuration, scored here and in workers."""

from contextlib import closing

import pytest

from pipelines.config import RewardConfig
from pipelines.errors import ConfigError
from pipelines.plugins import load_plugins
from pipelines.rewards import RewardContext, RewardRegistry
from pipelines.rewards.workers import ParallelComposer

FILE = '''
from typing import Any, Dict

from pipelines.rewards import BaseReward, RewardContext, RewardRegistry


@RewardRegistry.register("response_length_penalty")
class ResponseLengthPenalty(BaseReward):
    """Penalises responses above a number of words."""

    def __init__(self, config: Dict[str, Any]):
        super().__init__(config)
        self.max_words = config.get("max_words", 150)

    def compute(self, context: RewardContext) -> Dict[str, float]:
        self.validate_inputs(context)
        words = len(context.generated_text.split())
        if words <= self.max_words:
            return {"reward": 1.0}
        return {"reward": max(0.0, 1.0 - (words - self.max_words) / self.max_words)}


@RewardRegistry.register_function("counts_words")
def counts_words(context):
    return float(len(context.generated_text.split()))
'''
TEXTS = ["one", " ".join(["word"] * 150), " ".join(["word"] * 225), " ".join(["word"] * 900), ""]


@pytest.fixture(params=["with super", "without super"])
def file(request, tmp_path, monkeypatch):
    monkeypatch.setattr(RewardRegistry, "_classes", dict(RewardRegistry._classes))
    monkeypatch.setattr(RewardRegistry, "_canonical", dict(RewardRegistry._canonical))
    path = tmp_path / "rewards" / "length.py"
    path.parent.mkdir()
    path.write_text(FILE if request.param == "with super" else FILE.replace("        super().__init__(config)\n", ""))
    load_plugins([path])
    return path


@pytest.mark.parametrize("workers", [0, 1])
def test_it_works_unchanged(file, workers):
    entries = [
        RewardConfig(name="response_length_penalty"),
        RewardConfig(name="response_length_penalty", config={"max_words": 225}),
        RewardConfig(name="counts_words"),
    ]
    with closing(ParallelComposer(entries, [file], workers=workers)) as composer:
        scores = composer.score([RewardContext(generated_text=text) for text in TEXTS])
    assert scores.names == ("response_length_penalty", "response_length_penalty_2", "counts_words")
    assert scores.failures == ()
    assert scores.values.tolist() == [[1, 1, 1], [1, 1, 150], [0.5, 1, 225], [0, 0, 900], [1, 1, 0]]


def test_keys_without_a_schema_are_taken_as_they_are(file):
    reward = RewardRegistry.create("response_length_penalty", {"max_words": 2, "anything": [1, {"else": None}]})
    assert reward.compute(RewardContext(generated_text="a b c")) == {"reward": 0.5}
    with pytest.raises(ConfigError, match=r"rewards\[0\].config.anything: no such key"):
        RewardRegistry.create("counts_words", {"anything": 1}, where="rewards[0]")
