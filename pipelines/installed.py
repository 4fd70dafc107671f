"""Packages that need not be there and decide results where they are: an input of the stages that may ask them."""

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pipelines.config import DataConfig, ExperimentConfig

PREFIX = "package."
COMPARING, TASKS_OF = "math-verify", "reasoning-gym"


def packages_behind_rows(data: DataConfig) -> dict[str, str]:
    """reasoning-gym by its version, where the rows are its own: another one asks other questions."""
    from pipelines.rows.synthetic.registry import TASKS

    foreign = data.loader_type == "synthetic" and data.synthetic.task not in TASKS
    found = _version(TASKS_OF) if foreign else None
    return {} if found is None else {PREFIX + TASKS_OF: found}


def packages_behind_answers(config: ExperimentConfig, benchmark: str = "") -> dict[str, str]:
    """math-verify, where an `exact_match` may ask it: a reward of the run, or the benchmark.

    Its version is recorded, as that of every package (`stages.manifest`), and is no reason to do anything again.
    """
    settings = [entry.config for entry in config.rewards if entry.name == "exact_match"]
    if benchmark == "exact_match":
        settings = [next((entry.config for entry in config.evaluation if entry.name == benchmark), {})]
    there = any(map(_may_ask, settings)) and _version(COMPARING) is not None
    return {PREFIX + COMPARING: "installed"} if there else {}


def _may_ask(settings: Mapping[str, Any]) -> bool:
    return settings.get("math_verify") != "never"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
