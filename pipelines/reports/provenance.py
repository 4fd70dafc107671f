"""What runs were made with: settings, inputs, versions, checkpoints; and in which of them several runs differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import yaml

from pipelines.config import ExperimentConfig
from pipelines.monitoring.page import Html, joined, table, tag
from pipelines.reports.runs import Run
from pipelines.stages import manifest

INPUTS = {"preprocess": "training rows as tokens", "model": "files of the starting model", "plugins": "plugins"}
"""What the digests of a run are of."""


def unshared(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The settings and inputs in which runs differ: of each run its own values, under dotted keys."""
    flat = [_flat(run.settings) | _flat({"inputs": _short(run.identity.inputs)}) for run in runs]
    keys = dict.fromkeys(key for settings in flat for key in settings)
    differ = [key for key in keys if len({_value(settings, key) for settings in flat}) > 1]
    return [{key: settings[key] for key in differ if key in settings} for settings in flat]


def differences(runs: Sequence[Run]) -> Html:
    """The settings and inputs in which several runs differ."""
    found = unshared(runs)
    keys = dict.fromkeys(key for settings in found for key in settings)
    rows = [[key, *(_value(settings, key) for settings in found)] for key in keys]
    return table(("setting", *(run.name for run in runs)), rows) if rows else tag("p", "None: they are repetitions.")


def _short(inputs: dict[str, str]) -> dict[str, str]:
    return {name: sha256[:12] for name, sha256 in inputs.items()}


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings under dotted keys."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, dict) and value:
            found |= _flat(cast("dict[str, Any]", value), f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def _value(settings: dict[str, Any], key: str) -> str:
    return (
        yaml.safe_dump(settings[key], default_flow_style=True).removesuffix("\n...\n").strip()
        if key in settings
        else "-"
    )


def made_with(run: Run) -> Html:
    """Settings, inputs, versions and checkpoints: all that somebody needs who wants to have it again."""
    chosen, whole = _chosen(run), yaml.safe_dump(run.settings, sort_keys=False, allow_unicode=True)
    inputs = [(INPUTS.get(name, name), sha256) for name, sha256 in sorted(run.identity.inputs.items())]
    parts = [
        tag("h3", "Settings that are not the defaults"),
        table(("setting", "value", "default"), chosen) if chosen else tag("p", "None."),
        tag("details", tag("summary", "All settings that shaped it"), tag("pre", whole)),
        tag("h3", "Read"),
        table(("what", "sha256"), inputs),
        tag("p", "Checkpoints: " + (", ".join(path.name for path in run.checkpoints()) or "none"), class_="dim"),
        *_record(run),
    ]
    return joined(parts)


def _chosen(run: Run) -> list[tuple[str, str, str]]:
    """The settings of a run that differ from the defaults of this version, beside those."""
    usual, own = _flat(ExperimentConfig().model_dump(mode="json")), _flat(run.settings)
    rows = [
        (key, _value(own, key), _value(usual, _section(key, usual)))
        for key in own
        if key not in usual or own[key] != usual[key]
    ]
    return [row for row in rows if row[1] != row[2]]  # a part at null of what is null by default is no choice


def _section(key: str, usual: dict[str, Any]) -> str:
    """The key itself or what it is a part of, as far as the defaults go."""
    while key not in usual and "." in key:
        key = key.rpartition(".")[0]
    return key


def _record(run: Run) -> list[Html]:
    if run.manifest is None:
        return []
    versions = [(name, version) for name, version in run.manifest.versions.items()]
    drift = manifest.drift(run.manifest)
    return [
        tag("h3", "Versions"),
        table(("what", "version"), versions),
        tag("p", f"finished {run.manifest.finished}" + (f"; {drift}" if drift else ""), class_="dim"),
    ]
