"""`grpo report`: one HTML file about one or more runs, from what they recorded and how their checkpoints scored.

No stage: it reads, never trains or scores, and its page is made anew each time.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.config import ExperimentConfig
from pipelines.errors import ConfigError
from pipelines.files import write_text
from pipelines.monitoring.charts import MOST_LINES
from pipelines.reports import provenance
from pipelines.reports import runs as recorded
from pipelines.reports.page import GENERATOR, report_page
from pipelines.reports.runs import Run
from pipelines.reports.scores import Benchmark, benchmarks

REPORT_FILE = "report.html"
HEAD_BYTES = 2000
"""A page of ours says so this early."""

EVALUATED = re.compile("eval/.+/accuracy")
"""What benchmarks that were scored on the way log."""


@dataclass(frozen=True)
class Written:
    """Where the page is, and what it says in numbers: a line for each run."""

    path: Path
    runs: list[dict[str, Any]]


def run(config: ExperimentConfig, directories: Sequence[Path] = (), output: Path | None = None) -> Written:
    """Write the page of the runs in some directories (default: the configuration's), and return where.

    Without `output` it is `report.html`: in the directory of the one run, or here where there are several. Scores are
    those of the configuration's store. DataError for a directory without a run; ConfigError for a file that is there
    and no report, and for more runs than can be told apart.
    """
    chosen = list(directories) or [Path(config.trainer.output_dir)]
    found = recorded.read(chosen)
    if len(found) > MOST_LINES:
        raise ConfigError(f"{len(found)} runs are too many for one page", hint=f"give {MOST_LINES} at most")
    path = output or (found[0].directory / REPORT_FILE if len(found) == 1 else Path(REPORT_FILE))
    _refuse_foreign(path)
    scores = benchmarks(found, config.paths.stages)
    write_text(path, report_page(found, scores, config.trainer.evaluation_seed))
    settings = provenance.unshared(found)
    return Written(path, [_numbers(one, scores, own) for one, own in zip(found, settings, strict=True)])


def _refuse_foreign(path: Path) -> None:
    """ConfigError for what must not be replaced: a directory, or a file that no report wrote."""
    if path.is_dir():
        raise ConfigError(f"{path} is a directory", hint="give the name of a file in it (--output FILE)")
    if path.exists() and not (path.is_file() and _is_report(path)):
        hint = "give another name (--output FILE), or move it away"
        raise ConfigError(f"{path} is there, and no report", hint=hint)


def _is_report(path: Path) -> bool:
    with path.open("rb") as stream:
        return f'content="{GENERATOR}"'.encode() in stream.read(HEAD_BYTES)


def _numbers(run: Run, scores: Sequence[Benchmark], settings: dict[str, Any]) -> dict[str, Any]:
    reward = run.change("reward")
    newest = {one.title: score for one in scores if (score := one.newest(run)) is not None}
    return {
        "run": str(run.directory),
        "name": run.name,
        "state": run.state,
        "step": run.step,
        "reward": None if reward is None else {"first": reward[0], "last": reward[1]},
        "scores": {name: score.stored.metrics for name, score in newest.items()},
        "evaluations": {
            name: {"first": values[0], "last": values[-1], "highest": max(values)}
            for name in run.series
            if EVALUATED.fullmatch(name) and (values := run.values(name))
        },
        "settings": settings,
        "warnings": run.warnings(),
    }
