"""The page of one or more runs: what came of them first, then how, then what was said, then what it was made with."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pipelines.monitoring.charts import COLOURS, look, number
from pipelines.monitoring.page import Html, joined, page, table, tag
from pipelines.monitoring.progress import clock_text, memory_text
from pipelines.reports import samples
from pipelines.reports.breakdown import REST, breakdown, seconds, shares
from pipelines.reports.curves import curves
from pipelines.reports.lengths import lengths
from pipelines.reports.provenance import differences, made_with
from pipelines.reports.runs import Run
from pipelines.reports.score_tables import score_tables
from pipelines.reports.scores import Benchmark, changes

GENERATOR = "grpo report"
"""By this a page is known as one of ours, which another report may replace."""

METHODS = {"grpo": "GRPO", "ppo": "PPO", "sft": "supervised fine-tuning"}
MOST_WARNINGS = 12
MOST_STEPS = 20
"""Updates whose samples a page has, over all its runs, so that it stays small."""


def report_page(runs: Sequence[Run], found: Sequence[Benchmark], seed: int) -> str:
    """The whole document; `seed` draws the resamples behind the intervals of differences."""
    title = "/".join(runs[0].directory.resolve().parts[-2:]) if len(runs) == 1 else f"{len(runs)} runs"
    if len(runs) == 1:
        parts = [_about(runs[0]), _tiles(runs[0], found, seed), _warnings(runs)]
    else:
        parts = [_legend(runs), _side_by_side(runs), _warnings(runs)]
        parts += [tag("h2", "What the runs do not share"), differences(runs)]
    parts += [tag("h2", "Scores"), score_tables(runs, found, seed), tag("h2", "Over the updates"), curves(runs)]
    parts += [_folded("What {} earned and what it took", run, runs, breakdown(run)) for run in runs]
    parts += [_folded("What {} wrote", run, runs, _written(run, found, MOST_STEPS // len(runs))) for run in runs]
    parts += [_folded("What {} was made with", run, runs, made_with(run)) for run in runs]
    return page(title, tag("h1", title), *parts, generator=GENERATOR)


def _folded(heading: str, run: Run, runs: Sequence[Run], body: Html) -> Html:
    """A part about one run; among others it is folded away and says whose it is."""
    if len(runs) == 1:
        return joined([tag("h2", heading.format("it")), body])
    return joined([tag("h2", heading.format(run.name)), tag("details", tag("summary", "show"), body)])


def _about(run: Run) -> Html:
    return tag("p", f"{_method(run)}; {run.state}", class_="dim")


def _method(run: Run) -> str:
    weights = f"LoRA of rank {run.setting('model', 'lora_rank')}" if run.setting("model", "use_lora") else "all weights"
    dual = ", thinking and answer apart" if run.setting("trainer", "use_dual_gradients") else ""
    return f"{METHODS.get(run.algorithm, run.algorithm)}, {weights}{dual}"


def _tiles(run: Run, found: Sequence[Benchmark], seed: int) -> Html:
    """What came of a run, at a glance."""
    tiles = [tile for one in found if (tile := _gained(run, one, seed))]
    learnt = "reward" if "reward" in run.series else "loss"
    tiles.append(_tile(learnt, _change(run, learnt), "first and last tenth of updates"))
    tokens = run.values("num_tokens")
    told = f"{number(tokens[-1])} completion tokens" if tokens else ""
    tiles.append(_tile("updates", f"{run.step:,} of {run.planned:,}", told))
    tiles.append(
        _tile(
            "time",
            clock_text(seconds(run)),
            ", ".join(f"{label} {share:.0%}" for label, share in shares(run).items() if label != REST),
        )
    )
    if memory := run.values("memory/peak_gb"):
        tiles.append(_tile("peak memory", _memory(memory), "held by MLX"))
    return tag("div", *tiles, class_="tiles")


def _tile(label: str, value: str, words: str | Html) -> Html:
    return tag("div", tag("span", label, class_="dim"), tag("b", value), tag("span", words, class_="dim"))


def _change(run: Run, name: str) -> str:
    change = run.change(name)
    return "-" if change is None else f"{number(change[0])} → {number(change[1])}"


def _gained(run: Run, one: Benchmark, seed: int) -> Html:
    """A benchmark before and after."""
    score = one.newest(run)
    if score is None or score.accuracy is None:
        return Html("")
    before = one.base(run)
    found = one.against(score, before, seed)
    now = f"{100 * score.accuracy:.1f} %"
    if before is None or found is None or before.accuracy is None:
        words = f"{score.interval} of {score.stored.metrics['n']} items"
        return _tile(one.title, now, words)
    low, high = (f"{100 * end:+.1f}" for end in (found.low, found.high))
    kind = "good" if found.low > 0 else "bad" if found.high < 0 else "dim"
    verdict = tag("span", f"{100 * found.difference:+.1f} points", class_=kind)
    words = joined([verdict, f" ({low} to {high}), {score.stored.metrics['n']} items"])
    return _tile(one.title, f"{100 * before.accuracy:.1f} → {now}", words)


def _memory(values_gb: Sequence[float]) -> str:
    return memory_text(max(values_gb, default=0.0))


def _legend(runs: Sequence[Run]) -> Html:
    marks = ((run, "- - " if run.colour >= COLOURS else "● ") for run in runs)
    entries = [tag("span", tag("span", mark, class_=look(run.colour)), run.name) for run, mark in marks]
    return tag("p", *entries, class_="legend")


def _side_by_side(runs: Sequence[Run]) -> Html:
    columns: dict[str, Callable[[Run], str]] = {
        "run": lambda run: run.name,
        "method": _method,
        "state": lambda run: run.state,
        "reward": lambda run: _change(run, "reward"),
        "loss": lambda run: _change(run, "loss"),
        "time": lambda run: clock_text(seconds(run)),
        "peak memory": lambda run: _memory(run.values("memory/peak_gb")),
    }
    if all("reward" in run.series for run in runs):
        del columns["loss"]  # near 0 on-policy, whatever is learnt
    rows = [[read(run) for read in columns.values()] for run in runs]
    words = "With an arrow: means of the first and of the last tenth of the updates."
    return joined([table(list(columns), rows, range(3, len(columns))), tag("p", words, class_="dim")])


def _warnings(runs: Sequence[Run]) -> Html:
    said = [(run, warning) for run in runs for warning in run.warnings()]
    if not said:
        return tag("p", "No warnings.", class_="good")
    shown = [
        tag("li", samples.excerpt(warning if len(runs) == 1 else f"{run.name}: {warning}"))
        for run, warning in said[:MOST_WARNINGS]
    ]
    more = len(said) - len(shown)
    rest = [tag("li", f"and {more} more in train.log")] if more else []
    return tag("ul", *shown, *rest, class_="warnings")


def _written(run: Run, found: Sequence[Benchmark], most_steps: int) -> Html:
    parts: list[Html] = []
    for one in found:
        score, base = one.newest(run), one.base(run)
        if score is not None and base is not None and score.accuracy is not None:
            is_mean = bool({*base.stored.by_item.values(), *score.stored.by_item.values()} - {0.0, 1.0})
            told = samples.changed(changes(base, score), is_mean=is_mean)
            parts += [tag("h3", f"{one.title}: answers that changed"), told]
    return joined([*parts, lengths(run), tag("h3", "Samples while it learnt"), samples.samples(run, most_steps)])
