"""Loaders by the name that `data.loader_type` uses, the built-in ones and those of plugins."""

import difflib
from collections.abc import Callable, Sequence
from typing import ClassVar, TypeVar

from pipelines.config import DataConfig
from pipelines.config.checks import LOADERS
from pipelines.errors import ConfigError
from pipelines.plugins import load_plugins, refuse_taken
from pipelines.rows.loaders.base import BaseLoader
from pipelines.rows.loaders.hf import HfLoader
from pipelines.rows.loaders.jsonl import JsonlLoader
from pipelines.rows.loaders.npy import NpyLoader
from pipelines.rows.loaders.synthetic import SyntheticLoader

LoaderT = TypeVar("LoaderT", bound=type[BaseLoader])


class LoaderRegistry:
    """Every loader that a configuration can name."""

    _classes: ClassVar[dict[str, type[BaseLoader]]] = {
        "jsonl": JsonlLoader,
        "npy": NpyLoader,
        "hf": HfLoader,
        "synthetic": SyntheticLoader,
    }

    @classmethod
    def register(cls, name: str) -> Callable[[LoaderT], LoaderT]:
        """Class decorator. Registering the same class again is fine; another class under a taken name is not."""

        def decorate(loader: LoaderT) -> LoaderT:
            if not issubclass(loader, BaseLoader):
                raise ConfigError(
                    f"loader {name!r}: {loader.__name__} does not derive from BaseLoader",
                    hint="write `class YourLoader(BaseLoader)` and give it `records(self, path)`",
                )
            refuse_taken(name, cls._classes.get(name), loader, "loaders")
            cls._classes[name] = loader
            return loader

        return decorate

    @classmethod
    def names(cls) -> list[str]:
        """Every name that can be asked for."""
        return sorted(cls._classes)

    @classmethod
    def get(cls, name: str) -> type[BaseLoader]:
        """The class behind a name; ConfigError for one that nobody registered."""
        if name in cls._classes:
            return cls._classes[name]
        close = difflib.get_close_matches(name, cls.names(), n=1)
        guess = f"did you mean {close[0]!r}? " if close else ""
        raise ConfigError(
            f"data.loader_type: there is no loader called {name!r}",
            hint=f"{guess}known are {', '.join(cls.names())}; list a file of your own under `plugins`",
        )


def loader_for(data: DataConfig, plugins: Sequence[str] = ()) -> BaseLoader:
    """The loader that a `data` section names; plugins are imported only if none of ours has that name."""
    if data.loader_type not in LOADERS:
        load_plugins(plugins)
    return LoaderRegistry.get(data.loader_type)(data)
