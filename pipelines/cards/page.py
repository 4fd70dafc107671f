"""A model card as Markdown: README.md with the hub's front matter, and the picture it shows."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pipelines.cards.origin import CARD_FILE, Origin
from pipelines.cards.scores import Stored, difference, stored_scores
from pipelines.evaluation.records import own
from pipelines.monitoring import curves
from pipelines.stages import manifest

CURVES_FILE = "curves.png"
METHODS = {"grpo": "GRPO", "ppo": "PPO", "sft": "supervised fine-tuning"}
INPUTS = {"preprocess": "training data as tokens", "model": "files of the base", "plugins": "plugins"}
"""What the digests of a run are of."""
SAID_BY_NOBODY = "unknown: the files of the base do not say"

Row = Sequence[Any]


@dataclass(frozen=True)
class Form:
    """What an export holds, in words; how to hear it answer; and whether it answers as the checkpoint does."""

    words: str
    command: str
    is_exact: bool


def write(directory: Path, origin: Origin, name: str, form: Form) -> None:
    """The card, its picture, and the licence files of the base."""
    if origin.curves:
        curves.draw(origin.curves, directory / CURVES_FILE)
    for pattern in ("LICENSE*", "NOTICE*"):
        for file in sorted(origin.base.glob(pattern)) if origin.base else ():
            shutil.copyfile(file, directory / file.name)
    (directory / CARD_FILE).write_text(text(origin, name, form), encoding="utf-8")


def text(origin: Origin, name: str, form: Form) -> str:
    """The whole card."""
    parts = (
        f"---\n{_yaml(metadata(origin))}---\n\n# {name}\n\n{what(origin)} {form.words}\n",
        f"```sh\n{form.command}\n```\n",
        _table(("", ""), _facts(origin)),
        f"## Training\n\n{_training(origin)}",
        f"## Evaluation\n\n{_evaluation(origin, form)}",
        f"## Configuration\n\n{_configuration(origin)}",
        f"## Versions\n\n{_table(('exported with', ''), list(manifest.versions().items()))}",
    )
    return "\n".join(parts)


def metadata(origin: Origin) -> dict[str, Any]:
    """The front matter: `base_model` only for a model of the hub, `license` only where the base states one."""
    hub = {"base_model": origin.hub_name} if origin.hub_name else {}
    learnt = ["reinforcement-learning"] if origin.run and _algorithm(origin) != "sft" else []
    tags = ["mlx", "grpo", *learnt]
    return {**hub, **origin.licence, "library_name": "mlx", "pipeline_tag": "text-generation", "tags": tags}


def what(origin: Origin) -> str:
    """What the model is, in a sentence."""
    if origin.target.directory is None:
        return f"`{origin.base_name}` before any training."
    if origin.run is None:
        return "A checkpoint of a run that is not known."
    base = "a base that is not known" if origin.base is None else f"`{origin.base_name}`"
    adapters = ", as low-rank adapters" if origin.target.is_adapter else ""
    method = METHODS.get(_algorithm(origin), _algorithm(origin))
    return f"What {base} became after {origin.step} updates of {method}{adapters}."


def _algorithm(origin: Origin) -> str:
    return origin.run.config["trainer"]["algorithm"] if origin.run else ""


def _facts(origin: Origin) -> list[Row]:
    base = "not known" if origin.base is None else origin.base_name
    facts: list[Row] = [("base", base), ("licence of the base", ", ".join(origin.licence.values()) or SAID_BY_NOBODY)]
    read = sorted(origin.run.inputs.items()) if origin.run else []
    return facts + [(f"sha256 of the {INPUTS.get(name, name)}", f"`{sha256}`") for name, sha256 in read]


def _training(origin: Origin) -> str:
    if not origin.curves:
        return "No metrics of its training are known.\n"
    rows = [
        (f"`{name}`", steps[0], f"{values[0]:.4g}", steps[-1], f"{values[-1]:.4g}")
        for name, (steps, values) in origin.curves.items()
    ]
    table = _table(("metric", "first update", "value", "last update", "value"), rows)
    return f"![The metrics below over the updates]({CURVES_FILE})\n\n{table}"


def _evaluation(origin: Origin, form: Form) -> str:
    rows: list[Row] = []
    lines: list[str] = []
    for score, base in stored_scores(origin):
        if base is not None:
            rows.append(_scored("base", base))
            lines += [_compared(origin, score, base)] if "accuracy" in score.metrics else []
        rows.append(_scored(origin.target.name, score))
    if not rows:
        return "No score of these weights is known.\n"
    table = _table(("benchmark", "settings", "model", "score", "95 % interval", "items"), rows)
    rounded = [] if form.is_exact else ["These are scores of the checkpoint, before its weights were rounded.\n"]
    return "\n".join([table, *lines, *rounded])


def _scored(model: str, score: Stored) -> Row:
    found = score.metrics
    settings = ", ".join(f"{key} {value}" for key, value in score.settings.items())
    if "accuracy" in found:
        interval = f"{100 * found['low']:.1f} to {100 * found['high']:.1f} %"
        return score.benchmark, settings, model, f"{100 * found['accuracy']:.1f} %", interval, found["n"]
    numbers = ", ".join(f"{name} {value:.4g}" for name, value in own(found).items())
    return score.benchmark, settings, model, numbers, "", found.get("n", "")


def _compared(origin: Origin, score: Stored, base: Stored) -> str:
    found = difference(score, base, origin.config.trainer.evaluation_seed)
    points, low, high = (f"{100 * value:+.1f}" for value in (found.difference, found.low, found.high))
    return (
        f"{score.benchmark}: {origin.target.name} against base {points} points, 95 % interval {low} to {high}; "
        f"better on {found.wins} items, worse on {found.losses}, the same on {found.ties}.\n"
    )


def _configuration(origin: Origin) -> str:
    if not origin.settings:
        return "The settings of its training are not known.\n"
    part = "" if "paths" in origin.settings else "What the run recorded; it leaves out paths and logging.\n\n"
    return f"{part}```yaml\n{_yaml(origin.settings)}```\n"


def _yaml(value: object) -> str:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True)


def _table(columns: Row, rows: Sequence[Row]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(str(cell).replace('|', '&#124;') for cell in line)} |\n" for line in lines)
