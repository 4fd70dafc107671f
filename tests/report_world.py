"""A small world for tests of reports: runs of a few updates, scored beside the model that they began with."""

import json
import shutil
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from grpo_cli import app
from pipelines.stages import store
from pipelines.stages.identity import Identity, write_sealed

ROWS = Path(__file__).resolve().parents[1] / "data" / "arithmetic" / "train.jsonl"
CONFIG = """\
trainer: {num_training_steps: 3, ppo_batch_size: 4, num_rollout_samples: 4, learning_rate: 1.0e-3, eval_every: 3}
data: {train_path: rows.jsonl, val_path: val.jsonl, max_gen_len: 24}
evaluation: [{name: exact_match}]
monitoring: {log_samples_every: 1}
"""
VOID = {"meta", "br"}


def world(factory: pytest.TempPathFactory) -> Path:
    """The world, made once in a session; tests change copies of what is in it."""
    place = factory.getbasetemp() / "reports"
    if not place.exists():
        place.mkdir()
        make(place)
    return place


def make(place: Path) -> None:
    """Runs with two seeds that are called the same, `a/run` and `b/run`, and one of adapters, `lora`: all scored.

    Beside them `sft` without a score, and `ppo` without the texts of its samples.
    """
    lines = ROWS.read_text().splitlines(keepends=True)
    (place / "rows.jsonl").write_text("".join(lines[:16]))
    (place / "val.jsonl").write_text("".join(lines[20:44]))
    (place / "config.yaml").write_text(CONFIG)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        train("a/run", "trainer.seed=1")
        train("b/run", "trainer.seed=2")
        train("lora", "model.use_lora=true")
        train("sft", "trainer.algorithm=sft", "trainer.eval_every=0", "trainer.num_training_steps=2")
        train(
            "ppo",
            "trainer.algorithm=ppo",
            "trainer.eval_every=0",
            "monitoring.log_prompts=false",
            "trainer.num_training_steps=2",
        )
        for name, seed in (("a/run", 1), ("b/run", 2), ("lora", 0)):
            of = ["-s", f"trainer.output_dir={name}", "-s", f"trainer.seed={seed}", "--baseline", "-q"]
            assert app.run(["eval", *of]) == 0
            if name != "lora":
                assert app.run(["eval", *of, "-s", "evaluation=[{name: exact_match, config: {limit: 6}}]"]) == 0


def train(name: str, *settings: str) -> None:
    given = [word for setting in (f"trainer.output_dir={name}", *settings) for word in ("-s", setting)]
    assert app.run(["train", "-q", *given]) == 0


def logged(run: str | Path) -> list[dict[str, Any]]:
    """The lines of its metrics."""
    return [json.loads(line) for line in (Path(run) / "metrics.jsonl").read_text().splitlines()]


def rewrite(run: str | Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change each line of its metrics in place."""
    records = logged(run)
    for record in records:
        change(record)
    (Path(run) / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


def copied(run: str | Path, place: Path, *, whole: bool = False) -> Path:
    """A run of the same settings somewhere else, to do what one likes with; with its checkpoints only if `whole`."""
    shutil.copytree(run, place, ignore=None if whole else shutil.ignore_patterns("checkpoints"))
    return place


def reseal(run: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """Make a run one of other settings or inputs."""
    record = json.loads((run / "identity.json").read_text())
    del record["sha256"]
    change(record)
    write_sealed(run / "identity.json", record)
    return run


def score(root: Path | str, weights: dict[str, str], correct: Sequence[float], **metrics: Any) -> Path:
    """An entry of a store: a benchmark's items 0, 1, ... with these scores."""
    setting = {"benchmark": {"name": "quiz", "config": {}}, "request": {}, "trainer": {"seed": 0}}
    identity = Identity("eval", 2, setting, {"preprocess": "rows", **weights})

    def work(place: Path) -> dict[str, Any]:
        lines = [json.dumps({"item": item, "score": value, "prompt": "p"}) for item, value in enumerate(correct)]
        (place / "items.jsonl").write_text("".join(line + "\n" for line in lines))
        return metrics

    return store.run_stage(identity, store.directory_for(root, identity), work).directory


class Page(HTMLParser):
    """The elements of a page, whether they close in order, what they refer to, the cells of its tables, and its boxes.

    A box is the class and the text of what is shown about a sample: (`answer`, `42`), and (``, `Update 10`) above it.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.references: list[tuple[str, str]] = []
        self.wrong: list[str] = []
        self.rows: list[list[str]] = []
        self.boxes: list[tuple[str, str]] = []
        self.size = len(text.encode())
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.seen.add(tag)
        self.references += [(tag, name) for name, _ in attrs if name in ("href", "src", "style", "xlink:href")]
        self.wrong += [name for name, _ in attrs if name.startswith("on")]
        if tag not in VOID:
            self.open.append(tag)
        if tag in ("pre", "b", "span"):
            self.boxes.append((dict(attrs).get("class") or "", ""))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            return
        self.text += data + " "
        if self.open and self.open[-1] in ("pre", "b", "span"):
            kind, before = self.boxes.pop()
            self.boxes.append((kind, before + data))
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data

    def row(self, first: str) -> list[str]:
        """The row that begins with this cell."""
        return next(row for row in self.rows if row[:1] == [first])
