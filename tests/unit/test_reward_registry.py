"""The registry: names, aliases, configuration keys, and classes and functions that users write."""

import pytest

from pipelines.errors import ConfigError
from pipelines.rewards import BaseReward, RewardContext, RewardRegistry


@pytest.fixture(autouse=True)
def own_registry(monkeypatch):
    """What a test registers is forgotten after it."""
    monkeypatch.setattr(RewardRegistry, "_classes", dict(RewardRegistry._classes))
    monkeypatch.setattr(RewardRegistry, "_canonical", dict(RewardRegistry._canonical))


def test_a_user_class_works_unchanged():
    @RewardRegistry.register("response_length_penalty")
    class ResponseLengthPenalty(BaseReward):
        def __init__(self, config):
            super().__init__(config)
            self.max_words = config.get("max_words", 150)

        def compute(self, context):
            self.validate_inputs(context)
            words = len(context.generated_text.split())
            return {"reward": float(words <= self.max_words)}

    context = RewardContext(generated_text="one two three")
    assert RewardRegistry.create("response_length_penalty").compute(context) == {"reward": 1.0}
    assert RewardRegistry.create("response_length_penalty", {"max_words": 2}).compute(context) == {"reward": 0.0}


def test_a_user_class_that_does_not_call_super():
    @RewardRegistry.register("bare")
    class Bare(BaseReward):
        def __init__(self, config):
            self.factor = config["factor"]

        def compute(self, context):
            return self.factor * self.validate_inputs(context)

    assert RewardRegistry.create("bare", {"factor": 0.5}).compute(RewardContext(generated_text="x")) == 0.5
    with pytest.raises(ConfigError, match=r"rewards\[2\].config: reward 'bare' could not be made: KeyError: 'factor'"):
        RewardRegistry.create("bare", {}, where="rewards[2]")


def test_a_plain_function():
    @RewardRegistry.register_function("is_short")
    def is_short(context):
        return float(len(context.answer) < 5)

    assert RewardRegistry.create("is_short").compute(RewardContext(answer="42")) == 1.0
    assert is_short(RewardContext(answer="a long one")) == 0.0
    with pytest.raises(ConfigError, match=r"reward.config.limit: no such key"):
        RewardRegistry.create("is_short", {"limit": 3})


def test_validate_inputs():
    reward = RewardRegistry.create("exact_match")
    assert reward.validate_inputs(RewardContext(generated_text="x"))
    assert not reward.validate_inputs(RewardContext(generated_text=" "))
    with pytest.raises(TypeError, match="not dict"):
        reward.validate_inputs({"generated_text": "x"})


def test_an_alias_is_the_same_reward():
    assert RewardRegistry.get("tag_structure") is RewardRegistry.get("format_structure")
    assert RewardRegistry.canonical("tag_structure") == "format_structure"


def test_an_unknown_name_gets_a_guess():
    with pytest.raises(ConfigError, match=r"rewards\[0\].name: there is no reward called 'exact_mach'") as caught:
        RewardRegistry.create("exact_mach", where="rewards[0]")
    assert "did you mean 'exact_match'?" in caught.value.hint
    assert caught.value.exit_code == 2


def test_an_unknown_key_gets_a_guess():
    with pytest.raises(ConfigError, match=r"rewards\[3\].config.min_think_lenght: no such key") as caught:
        RewardRegistry.create("format_structure", {"min_think_lenght": 3}, where="rewards[3]")
    assert "did you mean 'min_think_length'?" in caught.value.hint


def test_a_wrong_value_names_its_key():
    with pytest.raises(
        ConfigError, match=r"rewards\[0\].config.target_length should be greater than or equal to 1, not 0"
    ):
        RewardRegistry.create("length_penalty", {"target_length": 0}, where="rewards[0]")
    with pytest.raises(ConfigError, match=r"config.max_length should be a whole number, not 'long'"):
        RewardRegistry.create("length_penalty", {"max_length": "long"})
    with pytest.raises(ConfigError, match="require_mark should be true or false, not 'yes'") as caught:
        RewardRegistry.create("exact_match", {"require_mark": "yes"})
    assert caught.value.hint == "write true or false, without quotes"


def test_two_classes_cannot_have_one_name():
    with pytest.raises(ConfigError, match="two rewards want the name 'exact_match'"):

        @RewardRegistry.register("exact_match")
        class Other(BaseReward):
            def compute(self, context):
                return float(context.step)


def test_only_rewards_can_be_registered():
    with pytest.raises(ConfigError, match="does not derive from BaseReward"):
        RewardRegistry.register("loose")(dict)
