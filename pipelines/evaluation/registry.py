"""Names to evaluator classes, and making one from its configuration."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar

from pydantic import ValidationError

from pipelines.config.problems import setting_error
from pipelines.errors import ConfigError
from pipelines.evaluation.base import OF_COMPLETIONS, BaseEvaluator, EvaluatorConfig
from pipelines.evaluation.exact_match import ExactMatch
from pipelines.evaluation.gsm8k import Gsm8k
from pipelines.evaluation.human_eval import HumanEval
from pipelines.evaluation.mbpp import Mbpp
from pipelines.evaluation.mcq import Mcq
from pipelines.evaluation.perplexity import Perplexity
from pipelines.evaluation.rewarded import Rewarded
from pipelines.plugins import refuse_taken

EvaluatorT = TypeVar("EvaluatorT", bound=type[BaseEvaluator])
JUDGING = ("verdict", "verdicts", "measure")
"""What an evaluator may override to judge; one of them it must."""


class EvaluatorRegistry:
    """Every benchmark that a configuration or `--benchmark` can name."""

    _classes: ClassVar[dict[str, type[BaseEvaluator]]] = {}

    @classmethod
    def register(cls, name: str) -> Callable[[EvaluatorT], EvaluatorT]:
        """Class decorator. Registering the same class again is fine; another class under a taken name is not."""

        def decorate(evaluator: EvaluatorT) -> EvaluatorT:
            if not issubclass(evaluator, BaseEvaluator):
                raise ConfigError(
                    f"evaluator {name!r}: {evaluator.__name__} does not derive from BaseEvaluator",
                    hint="write `class YourEvaluator(BaseEvaluator)` and give it `items` and `verdict`",
                )
            if all(getattr(evaluator, name) is getattr(BaseEvaluator, name) for name in JUDGING):
                raise ConfigError(
                    f"evaluator {name!r}: {evaluator.__name__} judges nothing",
                    hint="give it `verdict`, or `measure` if it reads the model in another way",
                )
            refuse_taken(name, cls._classes.get(name), evaluator, "evaluators")
            cls._classes[name] = evaluator
            return evaluator

        return decorate

    @classmethod
    def names(cls) -> list[str]:
        """Every name that can be asked for."""
        return sorted(cls._classes)

    @classmethod
    def get(cls, name: str, *, where: str = "benchmark") -> type[BaseEvaluator]:
        """The class behind a name; ConfigError for one that is unknown."""
        known = cls.names()
        if name in known:
            return cls._classes[name]
        close = difflib.get_close_matches(name, known, n=1)
        guess = f"did you mean {close[0]!r}? " if close else ""
        raise ConfigError(
            f"{where}: there is no benchmark called {name!r}",
            hint=f"{guess}known are {', '.join(known)}; list a file of your own under `plugins`",
        )

    @classmethod
    def create(cls, name: str, config: Mapping[str, Any] | None = None, *, where: str = "benchmark") -> BaseEvaluator:
        """Make one evaluator; a key or value it cannot use is a ConfigError that names `where.config.key`."""
        evaluator = cls.get(name, where=where)
        try:
            made = evaluator(config)
        except ValidationError as error:
            raise setting_error(error, evaluator.Config, f"{where}.config") from error
        if not made.decodes:
            _refuse_idle(name, made.settings, where)
        return made


def _refuse_idle(name: str, settings: EvaluatorConfig, where: str) -> None:
    """ConfigError for a key of decoding that was changed where nothing is decoded."""
    for key in OF_COMPLETIONS:
        if getattr(settings, key) != type(settings).model_fields[key].default:
            raise ConfigError(f"{where}.config.{key}: {name} decodes no completions here", hint="leave it out")


EvaluatorRegistry.register("exact_match")(ExactMatch)
EvaluatorRegistry.register("gsm8k")(Gsm8k)
EvaluatorRegistry.register("human_eval")(HumanEval)
EvaluatorRegistry.register("mbpp")(Mbpp)
EvaluatorRegistry.register("mcq")(Mcq)
EvaluatorRegistry.register("perplexity")(Perplexity)
EvaluatorRegistry.register("rewards")(Rewarded)
