"""Scores of a report are those of the store: found by the content of weights, compared where the items are the same."""

import json
import logging
import os
from pathlib import Path

import pytest
from report_world import copied, reseal, score, world
from stage_world import tree

from pipelines import evaluate
from pipelines.config.loader import resolve
from pipelines.evaluation.targets import STARTING_MODEL, target
from pipelines.reports.runs import read
from pipelines.reports.scores import BASE, benchmarks, changes
from pipelines.stages.digest import DigestCache

STORE = ".grpo/stages"
FRACTIONS = {"accuracy": 0.5, "low": 0.1, "high": 0.9, "n": 2}


@pytest.fixture(autouse=True)
def _here(tmp_path_factory, monkeypatch):
    monkeypatch.chdir(world(tmp_path_factory))


def known(*places, root=STORE):
    runs = read([Path(place) for place in places])
    return runs, benchmarks(runs, root)


def models(one):
    return [found.model for found in one.scores]


@pytest.mark.parametrize(("name", "seed"), [("a/run", 1), ("b/run", 2), ("lora", 0)])
def test_scores_and_differences_are_those_of_eval(name, seed):
    overrides = [f"trainer.output_dir={name}", f"trainer.seed={seed}", f"model.use_lora={name == 'lora'}"]
    config = resolve([Path("config.yaml")], overrides, {}).config
    own, base = (evaluate.run(config, target=model)[0].score for model in (target(config), STARTING_MODEL))
    expected = evaluate.beside(own, base, 7).difference
    (run,), found = known(name)
    one = next(one for one in found if one.title == "exact_match")
    assert models(one) == [BASE, "step_000003"]
    assert [found.stored.metrics for found in one.scores] == [base.metrics, own.metrics]
    assert one.base(run) is one.scores[0]
    assert one.newest(run) is one.scores[1]
    assert one.against(one.scores[1], one.base(run), 7) == expected
    became = changes(*one.scores)
    assert len(became["won"]) == expected.wins
    assert len(became["lost"]) == expected.losses
    assert len(became["still wrong"]) + len(became["still right"]) == expected.ties
    assert all(change.before["item"] == change.after["item"] for some in became.values() for change in some)
    assert all(change.before["correct"] is False and change.after["correct"] for change in became["won"])


def test_runs_with_different_seeds_are_compared_unless_the_seed_chose_the_items():
    (first, second), found = known("a/run", "b/run")
    assert [one.title for one in found] == [
        "exact_match",
        "exact_match, limit 6, seed 1",
        "exact_match, limit 6, seed 2",
    ]
    whole, of_first, of_second = found
    assert models(whole) == [BASE, "a/run, step_000003", "b/run, step_000003"]
    assert models(of_first) == [BASE, "a/run, step_000003"]
    assert models(of_second) == [BASE, "b/run, step_000003"]
    assert whole.against(whole.newest(second), whole.newest(first), 0) is not None
    assert of_first.against(of_first.newest(first), of_second.newest(first), 0) is None


def test_a_score_belongs_to_its_weights_wherever_they_lie(tmp_path):
    moved = copied("a/run", tmp_path / "moved", whole=True)
    _, found = known(moved)
    assert models(found[0]) == [BASE, "step_000003"]
    weights = moved / "checkpoints" / "step_000003" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    _, found = known(moved)
    assert models(found[0]) == [BASE]


def test_each_run_is_measured_against_the_model_it_began_with(tmp_path):
    other = reseal(copied("a/run", tmp_path / "other"), lambda record: record["inputs"].update(model="of theirs"))
    store = tmp_path / "stages"
    ours = read([Path("a/run")])[0].base
    score(store, ours, [0, 1], **FRACTIONS)
    score(store, {"model": "of theirs"}, [1, 1], **FRACTIONS | {"accuracy": 1.0})
    (first, second, third), (one,) = known("a/run", other, "b/run", root=store)
    assert models(one) == [f"{BASE} of a/run, b/run", f"{BASE} of {second.name}"]
    assert [one.base(run).accuracy for run in (first, second, third)] == [0.5, 1.0, 0.5]


def test_of_two_scores_of_a_model_the_newest_counts(tmp_path):
    base = read([Path("a/run")])[0].base
    copy = copied(score(tmp_path, base, [0.0], **FRACTIONS), tmp_path / "eval" / ("a" * 12))
    record = json.loads((copy / "manifest.json").read_text())
    del record["sha256"]
    record["summary"]["accuracy"] = 1.0
    (copy / "manifest.json").write_text(json.dumps(record))
    os.utime(copy, (2e9, 2e9))
    _, (one,) = known("a/run", root=tmp_path)
    assert [found.accuracy for found in one.scores] == [1.0]


def test_a_damaged_score_is_left_out_and_told(tmp_path, caplog):
    base = read([Path("a/run")])[0].base
    entry = score(tmp_path, base, [0, 1], **FRACTIONS)
    items = entry / "items.jsonl"
    for damaged in (b"{" * items.stat().st_size, items.read_bytes().replace(b"item", b"itam")):
        items.write_bytes(damaged)
        with caplog.at_level(logging.WARNING):
            assert known("a/run", root=tmp_path)[1] == []
        assert "a score is left out" in caplog.text
        assert str(entry) in caplog.text
        caplog.clear()


@pytest.mark.parametrize(
    "metrics",
    [{}, {"perplexity": 2.5, "n": 2}, {"accuracy": 0.5, "n": 2}, {"accuracy": None, "low": 0, "high": 1, "n": 2}],
    ids=["nothing", "perplexity", "no interval", "not finite"],
)
def test_a_score_that_nothing_is_right_in_has_no_accuracy(tmp_path, metrics):
    score(tmp_path, read([Path("a/run")])[0].base, [0.5, 1], **metrics)
    (run,), (one,) = known("a/run", root=tmp_path)
    assert one.base(run).accuracy is None
    assert one.against(one.base(run), None, 0) is None


def test_scores_without_items_in_common_are_not_compared(tmp_path):
    run = read([Path("a/run")])[0]
    score(tmp_path, run.base, [], **FRACTIONS)
    (checkpoint,) = run.checkpoints()
    score(tmp_path, run.weights(checkpoint, DigestCache(tmp_path)), [1.0, 0.0], **FRACTIONS)
    (run,), (one,) = known("a/run", root=tmp_path)
    assert one.against(one.newest(run), one.base(run), 0) is None


def test_without_scores_no_weights_are_read_and_nothing_is_written(tmp_path):
    before = tree(tmp_path)
    assert known("a/run", root=tmp_path)[1] == []
    assert known("a/run", root=tmp_path / "gone")[1] == []
    assert tree(tmp_path) == before
