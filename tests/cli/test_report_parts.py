"""What a report says of rewards, time, lengths and samples: against numbers counted here, on a small page."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
from report_world import Page, copied, logged, reseal, rewrite, world

from grpo_cli import app
from pipelines.reports.page import MOST_STEPS


@pytest.fixture(autouse=True)
def _here(tmp_path_factory, monkeypatch):
    monkeypatch.chdir(world(tmp_path_factory))


@pytest.fixture
def run(tmp_path):
    return copied("a/run", tmp_path / "run")


@pytest.fixture
def report(tmp_path, capsys):
    def written(*places):
        output = tmp_path / "page.html"
        assert app.run(["report", *map(str, places), "--output", str(output), "-q"]) == 0
        capsys.readouterr()
        return Page(output.read_text(encoding="utf-8"))

    return written


def write_samples(run, records):
    (Path(run) / "samples.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


def sample(step, **fields):
    return {"step": step, "prompt": "p", "completion": "c", "thinking": "", "answer": "c", "reward": 1.0} | fields


def regions(page):
    """The texts by region."""
    return [(kind, text) for kind, text in page.boxes if kind in ("thinking", "answer")]


def test_samples_are_of_updates_all_over_a_run_and_few_enough(report, run):
    long = {"prompt": "q " * 5000, "completion": "<think>" + "t " * 5000 + "</think>" + "a " * 5000, "thinking": "t"}
    write_samples(run, [sample(step, **long, reward=i) for step in range(10, 3001, 10) for i in range(16)])
    page = report(run)
    steps = [int(text.removeprefix("Update ")) for kind, text in page.boxes if text.startswith("Update ")]
    assert len(steps) == MOST_STEPS
    assert (steps[0], steps[-1]) == (10, 3000)
    gaps = [after - before for before, after in pairwise(steps)]
    assert max(gaps) - min(gaps) <= 10
    assert "4 of 16 samples" in page.text
    assert [page.text.count(f"reward {reward} ") >= MOST_STEPS for reward in (15, 10, 5, 0)] == [True] * 4
    assert page.size < 800_000


def test_many_runs_share_the_room_for_samples(report, run, tmp_path):
    write_samples(run, [sample(step) for step in range(1, 41)])
    runs = [run, *(copied(run, tmp_path / f"{index}") for index in range(15))]
    assert sum(text.startswith("Update ") for _, text in report(*runs).boxes) == 16 * 3


@pytest.mark.parametrize(
    ("completion", "thinking", "cut"),
    [
        ("<think>a b</think>\n7", "a b", [("thinking", "<think>a b</think>"), ("answer", "7")]),
        ("<think>a</think>b</think>7", "a</think>b", [("thinking", "<think>a</think>b</think>"), ("answer", "7")]),
        ("a</think>a", "a", [("thinking", "a</think>"), ("answer", "a")]),
        ("<think>never closed", "never closed", [("thinking", "<think>never closed")]),
        ("only an answer", "", [("answer", "only an answer")]),
        ("<think></think>", "", [("thinking", "<think></think>")]),
        ("", "", [("answer", "(an empty completion)")]),
    ],
)
def test_a_completion_is_cut_into_its_regions(report, run, completion, thinking, cut):
    write_samples(run, [sample(1, completion=completion, thinking=thinking)])
    assert regions(report(run)) == [pair for kind, text in cut for pair in ((kind, kind), (kind, text))]


def test_the_close_tag_is_that_of_the_run(report, run):
    reseal(run, lambda record: record["config"]["generation"].update(think_end_tag="[/t]"))
    write_samples(run, [sample(1, completion="x</think>y[/t]z", thinking="x</think>y")])
    assert [text for _, text in regions(report(run))] == ["thinking", "x</think>y[/t]", "answer", "z"]


def test_training_logs_the_length_of_each_region():
    for record in map(json.loads, Path("a/run/samples.jsonl").read_text().splitlines()):
        inside, closed, _ = record["completion"].removeprefix("<think>").partition("</think>")
        whole = len(inside) + 2 if closed else record["length_tokens"]  # the model has a token for each character
        assert record["thinking_length_tokens"] == whole


def test_lengths_early_and_late(report, run):
    lengths = {1: [(10, 6), (20, 16)], 2: [(99, 50)], 3: [(30, 29), (40, 38), (50, 40)]}
    write_samples(
        run,
        [
            sample(
                step, length_tokens=whole, thinking_length_tokens=part, finish_reason="length" if whole > 45 else "stop"
            )
            for step, pairs in lengths.items()
            for whole, part in pairs
        ],
    )
    page = report(run)
    assert page.row("tokens of")[1:] == ["mean", "median", "90 % within", "longest", "cut off"]
    assert page.row("completion")[1:] == ["15 → 40", "15 → 40", "19 → 48", "20 → 50", "0% → 33%"]
    assert page.row("thinking")[1:] == ["11 → 35.7", "11 → 38", "15 → 39.6", "16 → 40", ""]
    assert page.row("answer")[1:] == ["4 → 4.33", "4 → 2", "4 → 8.4", "4 → 10", ""]
    assert "Bars: update 3 (3 completions). Dashed outline: update 1 (2 completions)." in page.text


def test_lengths_of_one_update_of_another_version_or_without_thinking(report, run):
    write_samples(run, [sample(1, length_tokens=5), sample(1, length_tokens=7)])
    page = report(run)
    assert page.row("completion")[1:] == ["6", "6", "6.8", "7", "0%"]
    assert not [row for row in page.rows if row[:1] == ["answer"]]
    assert "outline" not in page.text
    write_samples(run, [sample(1, length_tokens=5, thinking_length_tokens=0)])
    assert not [row for row in report(run).rows if row[:1] == ["answer"]]
    write_samples(run, [sample(1)])
    assert "How long it wrote" not in report(run).text


def test_texts_that_were_not_logged_still_have_lengths(report):
    page = report("ppo")
    assert "How long it wrote" in page.text
    assert page.row("thinking")
    assert regions(page) == []


def test_the_reward_by_component(report, run):
    reseal(
        run,
        lambda record: record["config"].update(
            rewards=[
                {"name": "exact_match", "weight": 3.0, "config": {}},
                {"name": "exact_match", "weight": 1.0, "config": {}},
                {"name": "mcq_accuracy", "weight": 0.0, "config": {}},
            ]
        ),
    )

    def change(record):
        part = {1: (0.0, 1.0), 2: (0.5, 0.5), 3: (0.5, 0.2)}.get(record["step"])
        if part:
            numbers = {"rewards/exact_match/mean": part[0], "rewards/exact_match_2/mean": part[1]}
            record.update(numbers, reward=0.75 * part[0] + 0.25 * part[1], reward_std=0.125)
            record["rewards/exact_match_2/std"] = 0.25

    rewrite(run, change)
    page = report(run)
    assert page.row("exact_match")[:5] == ["exact_match", "3", "0 → 0.5", "+0.5", "+0.375"]
    assert page.row("exact_match_2") == ["exact_match_2", "1", "1 → 0.2", "-0.8", "-0.2", "0.25"]
    assert page.row("mcq_accuracy")[1:3] == ["0", "never scored"]
    assert [row for row in page.rows if row[:2] == ["reward", ""]] == [
        ["reward", "", "0.25 → 0.425", "+0.175", "+0.175", "0.125"]
    ]
    assert "do not add up" not in page.text
    rewrite(run, lambda record: record.update(reward=0.9) if record["step"] == 3 else None)
    assert "The parts do not add up" in report(run).text


def test_the_time_by_what_it_was_spent_on(report):
    records, page = logged("a/run"), report("a/run")
    seconds = {
        label: sum(record.get(f"time/{name}_seconds", 0) for record in records)
        for label, name in {
            "rollouts": "rollout",
            "rewards": "reward",
            "update": "update",
            "benchmarks": "eval",
        }.items()
    }
    whole = sum(record.get("time/step_seconds", 0) for record in records) + seconds["benchmarks"]
    seconds["all else"] = whole - sum(seconds.values())
    for label, spent in seconds.items():
        found = [row for row in page.rows if row[:1] == [label]]
        assert len(found) == (spent / whole >= 0.005)
        assert all(row[2] == f"{spent / whole:.0%}" for row in found)
    updates = [record["time/update_seconds"] for record in records if "time/update_seconds" in record]
    first, last = (f"{value:.3g}" for value in (updates[0], updates[-1]))
    assert page.row("update")[4] == f"{first} → {last}"


def test_settings_stand_beside_their_defaults(report, run):
    schedule = {"name": "constant", "warmup_init": None}
    reseal(run, lambda record: record["config"]["trainer"].update(lr_schedule_config=schedule))
    page = report(run)
    assert "warmup_init" not in [row[0].rpartition(".")[2] for row in page.rows]  # null, as all of it by default
    assert page.row("trainer.lr_schedule_config.name") == ["trainer.lr_schedule_config.name", "constant", "null"]
    assert page.row("data.max_gen_len") == ["data.max_gen_len", "24", "64"]
