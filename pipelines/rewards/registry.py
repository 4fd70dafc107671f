"""Names to reward classes: who registered what, and making one from its configuration."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

from pydantic import ValidationError

from pipelines.config import Section
from pipelines.config.problems import setting_error
from pipelines.errors import ConfigError
from pipelines.plugins import refuse_taken
from pipelines.rewards.base import BaseReward, RewardResult
from pipelines.rewards.context import RewardContext

RewardT = TypeVar("RewardT", bound=type[BaseReward])
RewardFunction = Callable[[RewardContext], RewardResult]


class RewardRegistry:
    """Every reward that a configuration can name."""

    _classes: ClassVar[dict[str, type[BaseReward]]] = {}
    _canonical: ClassVar[dict[str, str]] = {}

    @classmethod
    def register(cls, name: str, *, aliases: Sequence[str] = ()) -> Callable[[RewardT], RewardT]:
        """Class decorator. An alias names the same reward; its metrics appear under `name`."""

        def decorate(reward: RewardT) -> RewardT:
            if not issubclass(reward, BaseReward):
                raise ConfigError(
                    f"reward {name!r}: {reward.__name__} does not derive from BaseReward",
                    hint="write `class YourReward(BaseReward)` and give it `compute(self, context)`",
                )
            for word in (name, *aliases):
                refuse_taken(word, cls._classes.get(word), reward, "rewards")
                cls._canonical[word] = name
                cls._classes[word] = reward
            return reward

        return decorate

    @classmethod
    def register_function(cls, name: str, *, aliases: Sequence[str] = ()) -> Callable[[RewardFunction], RewardFunction]:
        """Function decorator, for a rule without configuration: `def rule(context) -> float`."""

        def decorate(function: RewardFunction) -> RewardFunction:
            def compute(_self: BaseReward, context: RewardContext) -> RewardResult:
                return function(context)

            members = {"compute": compute, "Config": Section, "__module__": function.__module__}
            cls.register(name, aliases=aliases)(type(function.__name__, (BaseReward,), members))
            return function

        return decorate

    @classmethod
    def names(cls) -> list[str]:
        """Every name and alias that can be asked for."""
        return sorted(cls._classes)

    @classmethod
    def canonical(cls, name: str) -> str:
        """The name that an alias stands for."""
        return cls._canonical.get(name, name)

    @classmethod
    def get(cls, name: str, *, where: str = "reward") -> type[BaseReward]:
        if name in cls._classes:
            return cls._classes[name]
        close = difflib.get_close_matches(name, cls.names(), n=1)
        guess = f"did you mean {close[0]!r}? " if close else ""
        raise ConfigError(
            f"{where}: there is no reward called {name!r}",
            hint=f"{guess}known are {', '.join(cls.names())}; "
            f"one of your own is found in rewards/{name}.py, or in a file listed under `plugins`",
        )

    @classmethod
    def create(cls, name: str, config: Mapping[str, Any] | None = None, *, where: str = "reward") -> BaseReward:
        """Make one reward; a key or value it cannot use is a ConfigError that names `where.config.key`."""
        reward = cls.get(name, where=f"{where}.name")
        settings = dict(config or {})
        if reward.Config is not None:
            _check(reward.Config, settings, f"{where}.config")
        try:
            return reward(settings)
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                f"{where}.config: reward {name!r} could not be made: {type(error).__name__}: {error}",
                hint=f"the message comes from {reward.__module__}.{reward.__qualname__}.__init__",
            ) from error


def _check(model: type[Section], settings: dict[str, Any], where: str) -> None:
    """Validate against the declared keys; the first problem becomes the error, named by its dotted key."""
    try:
        model.model_validate(settings)
    except ValidationError as error:
        raise setting_error(error, model, where) from error
