"""Each function that docs/algorithms.md shows exists, with the parameters, their order and the defaults shown there."""

import inspect
import re
from pathlib import Path

import pytest

from pipelines.algorithms import advantages, importance, losses, ppo, regions, value

PAGE = (Path(__file__).parents[2] / "docs" / "algorithms.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
SHOWN = re.findall(r"^(\w+)\(([^()]*)\)\s*-> (.+)$", "".join(BLOCKS).replace(",\n", ", "), re.MULTILINE)
MODULES = (advantages, importance, losses, ppo, regions, value)


def found(name):
    return next(vars(module)[name] for module in MODULES if name in vars(module))


def without_spaces(text):
    return re.sub(r"\s+", "", text)


def written(parameter):
    """As the page writes it; a default that is no plain value stands there as dots."""
    default = parameter.default
    if default is parameter.empty:
        return parameter.name
    return f"{parameter.name}={default if default is None or isinstance(default, (bool, int, float)) else '...'}"


def test_the_page_shows_functions():
    assert len(SHOWN) == "".join(BLOCKS).count("->") == 11


@pytest.mark.parametrize(("name", "parameters"), [shown[:2] for shown in SHOWN], ids=[name for name, *_ in SHOWN])
def test_a_function_is_called_as_the_page_says(name, parameters):
    real = inspect.signature(found(name)).parameters.values()
    named = [written(parameter) for parameter in real]
    keywords = [parameter.kind is parameter.KEYWORD_ONLY for parameter in real]
    if True in keywords:
        named.insert(keywords.index(True), "*")
    assert without_spaces(parameters) == ",".join(named)


@pytest.mark.parametrize("shown", re.findall(r"-> (\w+)\(([\w, ]+)\)", "".join(BLOCKS)), ids=lambda shown: shown[0])
def test_what_it_gives_has_the_fields_that_the_page_says(shown):
    name, fields = shown
    kind = found(name)
    assert fields.split(", ") == list(getattr(kind, "_fields", None) or inspect.signature(kind).parameters)
