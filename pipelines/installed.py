"""Packages that need not be there and decide results where they are: their versions belong to a stage's inputs."""

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pipelines.config import DataConfig, ExperimentConfig

PREFIX = "package."
COMPARING = ("math-verify", "latex2sympy2-extended", "sympy")
"""What compares formulas, and what it computes with."""


def versions_behind_rows(data: DataConfig) -> dict[str, str]:
    """reasoning-gym, where the rows are its own."""
    from pipelines.rows.synthetic.registry import TASKS

    foreign = data.loader_type == "synthetic" and data.synthetic.task not in TASKS
    return _versions(("reasoning-gym",)) if foreign else {}


def versions_behind_answers(config: ExperimentConfig, benchmark: str = "") -> dict[str, str]:
    """math-verify and what is below it, where an `exact_match` may ask it: a reward of the run, or the benchmark."""
    settings = [entry.config for entry in config.rewards if entry.name == "exact_match"]
    if benchmark == "exact_match":
        settings = [next((entry.config for entry in config.evaluation if entry.name == benchmark), {})]
    return _versions(COMPARING) if any(map(_may_ask, settings)) else {}


def _may_ask(settings: Mapping[str, Any]) -> bool:
    return settings.get("math_verify") != "never"


def _versions(packages: tuple[str, ...]) -> dict[str, str]:
    """By package; nothing where the first, which needs the others, is not installed."""
    try:
        return {PREFIX + package: version(package) for package in packages}
    except PackageNotFoundError:
        return {}
