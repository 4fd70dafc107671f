"""Names of benchmarks: found, guessed, reserved, and their settings checked."""

import pytest

from pipelines.errors import ConfigError
from pipelines.evaluation.base import BaseEvaluator, EvaluatorConfig, Verdict
from pipelines.evaluation.exact_match import ExactMatch
from pipelines.evaluation.registry import EvaluatorRegistry


class Nothing(BaseEvaluator):
    """No items at all."""

    def items(self, sources):
        return []

    def verdict(self, context):
        return Verdict(False, None, None)


@pytest.fixture
def registered():
    EvaluatorRegistry.register("nothing")(Nothing)
    yield
    del EvaluatorRegistry._classes["nothing"]


def test_exact_match_is_built_in():
    assert "exact_match" in EvaluatorRegistry.names()
    assert EvaluatorRegistry.get("exact_match") is ExactMatch


def test_an_evaluator_of_somebody_elses(registered):
    assert isinstance(EvaluatorRegistry.create("nothing", {"limit": 3}), Nothing)
    assert EvaluatorRegistry.create("nothing", {"limit": 3}).settings == EvaluatorConfig(limit=3)
    EvaluatorRegistry.register("nothing")(Nothing)  # the same class again, as a plugin that is imported twice
    with pytest.raises(ConfigError, match="two evaluators want the name 'nothing'"):
        EvaluatorRegistry.register("nothing")(type("Other", (Nothing,), {}))


def test_a_class_that_is_no_evaluator_is_refused():
    with pytest.raises(ConfigError, match="does not derive from BaseEvaluator"):
        EvaluatorRegistry.register("wrong")(dict)  # type: ignore[type-var]


def test_a_typo_gets_a_guess():
    with pytest.raises(ConfigError, match="no benchmark called 'exact_mach'") as caught:
        EvaluatorRegistry.get("exact_mach")
    assert "did you mean 'exact_match'?" in caught.value.hint


def test_an_evaluator_that_judges_nothing_is_refused():
    with pytest.raises(ConfigError, match="Silent judges nothing"):
        EvaluatorRegistry.register("silent")(type("Silent", (BaseEvaluator,), {"items": Nothing.items}))


def test_every_built_in_benchmark_can_be_made():
    built_in = {"exact_match", "gsm8k", "human_eval", "mbpp", "mcq", "perplexity", "rewards"}
    assert built_in <= set(EvaluatorRegistry.names())
    for name in built_in:
        assert EvaluatorRegistry.create(name).settings.limit is None


@pytest.mark.parametrize(
    ("config", "key", "hint"),
    [
        ({"limits": 3}, "evaluation[0].config.limits", "did you mean 'limit'?"),
        ({"limit": 0}, "evaluation[0].config.limit should be greater than or equal to 1, not 0", "limit: "),
        ({"samples": "2"}, "evaluation[0].config.samples should be a whole number, not '2'", "write 2 without"),
    ],
)
def test_settings_are_checked_and_named(config, key, hint):
    with pytest.raises(ConfigError) as caught:
        EvaluatorRegistry.create("exact_match", config, where="evaluation[0]")
    assert caught.value.message.startswith(key)
    assert hint in caught.value.hint


def test_settings_of_completions_are_refused_where_none_are_decoded():
    for name, config in (("perplexity", {}), ("mcq", {"scoring": "loglikelihood"})):
        with pytest.raises(ConfigError, match=rf"at\.config\.samples: {name} decodes no completions here"):
            EvaluatorRegistry.create(name, {"samples": 2, "limit": 3, **config}, where="at")
        assert EvaluatorRegistry.create(name, {"samples": 1, "limit": 3, **config})
    assert EvaluatorRegistry.create("mcq", {"samples": 2}).settings.samples == 2
