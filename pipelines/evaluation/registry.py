"""Names to evaluator classes, and making one from its configuration."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar

from pydantic import ValidationError

from pipelines.errors import ConfigError
from pipelines.evaluation.base import BaseEvaluator
from pipelines.evaluation.exact_match import ExactMatch

EvaluatorT = TypeVar("EvaluatorT", bound=type[BaseEvaluator])

UNFINISHED = {
    "gsm8k": "grade-school word problems with their two ways to read an answer",
    "human_eval": "it runs model-written code, and the sandbox that holds such code is not finished",
    "mbpp": "it runs model-written code, and the sandbox that holds such code is not finished",
    "mcq": "multiple-choice files",
    "perplexity": "it scores texts without generating",
}
"""Names that are reserved for benchmarks this version does not have yet: the one list of them."""


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
            holder = cls._classes.get(name)
            if holder and (holder.__module__, holder.__qualname__) != (evaluator.__module__, evaluator.__qualname__):
                raise ConfigError(
                    f"two evaluators want the name {name!r}: {holder.__module__}.{holder.__qualname__} "
                    f"and {evaluator.__module__}.{evaluator.__qualname__}",
                    hint="register yours under another name",
                )
            cls._classes[name] = evaluator
            return evaluator

        return decorate

    @classmethod
    def names(cls) -> list[str]:
        """Every name that can be asked for."""
        return sorted(cls._classes)

    @classmethod
    def get(cls, name: str, *, where: str = "benchmark") -> type[BaseEvaluator]:
        """The class behind a name; ConfigError for one that is unknown or not built yet."""
        known = cls.names()
        if name in known:
            return cls._classes[name]
        if name in UNFINISHED:
            raise ConfigError(
                f"{where}: {name!r} does not work yet: {UNFINISHED[name]}",
                hint=f"leave it out for now; what works: {', '.join(known)}",
            )
        close = difflib.get_close_matches(name, [*known, *UNFINISHED], n=1)
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
            return evaluator(config)
        except ValidationError as error:
            problem = error.errors()[0]
            key = ".".join([where, "config", *map(str, problem["loc"])])
            known = sorted(evaluator.Config.model_fields)
            if problem["type"] == "extra_forbidden":
                close = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1)
                guess = f"did you mean {close[0]!r}? " if close else ""
                raise ConfigError(f"{key}: no such key", hint=f"{guess}known are {', '.join(known)}") from error
            message = problem["msg"].removeprefix("Value error, ")
            raise ConfigError(f"{key}: {message}", hint=f"keys of {name}: {', '.join(known)}") from error


EvaluatorRegistry.register("exact_match")(ExactMatch)
