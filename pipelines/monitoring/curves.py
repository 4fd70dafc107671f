"""A run's metrics as curves: read from its log, drawn as a picture."""

from pathlib import Path

from pipelines.monitoring import jsonl

SHOWN = {
    "reward": "reward",
    "loss": "loss",
    "kl": "KL, nats per token",
    "entropy": "entropy, nats per token",
    "completions/mean_length": "length, tokens",
    "completions/clipped_ratio": "fraction cut off",
    "grad_norm": "gradient norm",
    "learning_rate": "learning rate",
}
"""Metric: what its axis is called."""
COLUMNS = 2

Series = dict[str, tuple[list[int], list[float]]]
"""Metric: its updates and its values."""


def series(metrics: Path, last_step: int) -> Series:
    """What `metrics.jsonl` says of the shown metrics up to an update; those that were never logged are left out."""
    found: Series = {}
    if not metrics.is_file():
        return found
    for record in jsonl.records(metrics):
        if isinstance(record.get("step"), int) and record["step"] <= last_step:
            for name in SHOWN:
                if isinstance(record.get(name), (int, float)):
                    steps, values = found.setdefault(name, ([], []))
                    steps.append(record["step"])
                    values.append(float(record[name]))
    return {name: found[name] for name in SHOWN if name in found}


def draw(curves: Series, path: Path) -> None:
    """A PNG with a panel a metric over updates; the same curves give the same bytes."""
    from matplotlib.figure import Figure

    rows = -(-len(curves) // COLUMNS)
    figure = Figure(figsize=(9, 2.4 * rows), layout="constrained")
    panels = figure.subplots(rows, COLUMNS, squeeze=False).flat
    for (name, (steps, values)), panel in zip(curves.items(), panels, strict=False):
        panel.plot(steps, values, color="tab:blue", linewidth=1.2, marker="." if len(steps) < 30 else "")
        panel.set_title(SHOWN[name], fontsize=10, loc="left")
        panel.tick_params(labelsize=8)
        panel.grid(alpha=0.3)
    for panel in panels:
        panel.set_axis_off()
    figure.supxlabel("update", fontsize=9)
    figure.savefig(path, dpi=120, metadata={"Software": None})
