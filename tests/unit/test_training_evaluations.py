"""Evaluations on the way: the run is the same to the bit, the numbers are those of `grpo eval`, the best is kept."""

import json
from pathlib import Path

import pytest

from pipelines import evaluate, plan, preprocess, train
from pipelines.config import ExperimentConfig
from pipelines.errors import CheckpointError, ConfigError, DataError
from pipelines.evaluation.base import Verdict
from pipelines.evaluation.exact_match import ExactMatch
from pipelines.evaluation.registry import EvaluatorRegistry
from pipelines.evaluation.targets import Target
from pipelines.tokens.order import PromptCursor
from pipelines.training.evaluations import Best
from pipelines.training.loop import Loop, Progress
from pipelines.training.options import Options

DATA = Path(__file__).resolve().parents[2] / "data" / "arithmetic"
STEPS = 4
ITEMS = 4
CURVE = (1, 1, 3, 2, 2)
"""Right answers of `scripted` at each evaluation in turn."""
QUIET = Options(quiet=True)


class Scripted(ExactMatch):
    """The validation rows; how many of them count as right follows CURVE."""

    def __init__(self, config=None):
        super().__init__(config)
        self.asked = 0

    def verdict(self, context):
        evaluation, item = divmod(self.asked, ITEMS)
        self.asked += 1
        return Verdict(item < CURVE[evaluation], None, None)

    def conditions(self, config):
        return {"curve": list(CURVE)}


@pytest.fixture(scope="module", autouse=True)
def registered():
    EvaluatorRegistry.register("scripted")(Scripted)
    yield
    del EvaluatorRegistry._classes["scripted"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("evaluations")
    for name, rows in (("train", 40), ("val", ITEMS)):
        lines = (DATA / f"{name}.jsonl").read_text().splitlines(keepends=True)
        (place / f"{name}.jsonl").write_text("".join(lines[:rows]))
    preprocess.run(settings(place, "none"))
    return place


def settings(folder, name, benchmark="exact_match", **trainer):
    """Four small updates with adapters whose dropout draws random numbers."""
    trainer = {"num_training_steps": STEPS, "ppo_batch_size": 4, "num_rollout_samples": 4, **trainer}
    paths = {f"{split}_path": str(folder / f"{split}.jsonl") for split in ("train", "val")}
    return ExperimentConfig.model_validate(
        {
            "trainer": {"output_dir": str(folder / name), "learning_rate": 1e-3, **trainer},
            "model": {"use_lora": True, "lora_rank": 2, "lora_dropout": 0.2},
            "data": {**paths, "max_gen_len": 24},
            "rewards": [{"name": "format_structure"}],
            "evaluation": [{"name": benchmark}],
            "checkpointing": {"save_every": STEPS},
            "paths": {"stages": str(folder / "stages")},
        }
    )


def lines(config, keep=lambda _name: True):
    text = (Path(config.trainer.output_dir) / "metrics.jsonl").read_text()
    return [{name: value for name, value in json.loads(line).items() if keep(name)} for line in text.splitlines()]


def of_the_run(name):
    return not name.startswith(("eval/", "time", "memory")) and "per_second" not in name


def steps(config):
    return sorted(path.name for path in (Path(config.trainer.output_dir) / "checkpoints").glob("step_*"))


def manifest(config, step):
    path = Path(config.trainer.output_dir) / "checkpoints" / f"step_{step:06d}" / "manifest.json"
    return json.loads(path.read_text())


def test_a_run_is_the_same_with_evaluations_and_they_are_what_eval_says(folder):
    plain, evaluated = settings(folder, "plain"), settings(folder, "evaluated", eval_every=3)
    assert plan.train_identity(plain).key == plan.train_identity(evaluated).key
    for config in (plain, evaluated):
        assert train.run(config, options=QUIET).summary["status"] == "finished"
    first, *rest = lines(evaluated)
    assert (first["step"], first.keys() - {"step", "time"} > {"eval/exact_match/accuracy"}) == (0, True)
    assert [line["step"] for line in rest if "eval/exact_match/accuracy" in line] == [3, 4]
    assert lines(evaluated, of_the_run)[1:] == lines(plain, of_the_run)
    last = Path(f"checkpoints/step_{STEPS:06d}/adapters.safetensors")
    weights = [(Path(config.trainer.output_dir) / last).read_bytes() for config in (plain, evaluated)]
    assert weights[0] == weights[1]

    newest = Target("newest", Path(evaluated.trainer.output_dir) / last.parent)
    [evaluation] = evaluate.run(evaluated, target=newest, baseline=True)
    for line, score in ((first, evaluation.baseline), (rest[-1], evaluation.score)):
        told = {f"eval/exact_match/{name}": value for name, value in score.metrics.items()}
        assert {name: value for name, value in line.items() if name in told} == pytest.approx(told)


def test_the_best_evaluation_is_saved_and_kept(folder):
    config = settings(folder, "best", "scripted", eval_every=1)
    config = config.model_copy(update={"checkpointing": config.checkpointing.model_copy(update={"keep_last_n": 1})})
    assert config.checkpointing.best_metric == "eval/scripted/accuracy"
    result = train.run(config, options=QUIET)
    assert result.summary["curve"] == list(CURVE)
    assert steps(config) == ["step_000002", "step_000004"]
    assert manifest(config, 2)["metric"] == 0.75
    assert manifest(config, 2)["metric_name"] == "eval/scripted/accuracy"


def test_a_run_ends_when_evaluations_get_no_better(folder, monkeypatch):
    config = settings(folder, "early", eval_every=1, early_stop_after=2, learning_rate=1e-9)
    with monkeypatch.context() as patch:  # as if time were up after the first update
        patch.setattr(Loop, "_must_stop", lambda self, _started: self.progress.step >= 1)
        assert train.run(config, options=QUIET).status == "partial"
    result = train.run(config, options=QUIET)
    assert (result.status, result.summary["status"], result.summary["step"]) == ("ran", "stopped early", 2)
    assert train.run(config, options=QUIET).status == "cached"


def test_what_can_end_a_run_early_is_part_of_its_identity(folder):
    def key(every, **trainer):
        return plan.train_identity(settings(folder, "any", eval_every=every, **trainer)).key

    assert key(1) == key(2)
    assert key(1, early_stop_after=2) != key(2, early_stop_after=2)
    assert key(1, early_stop_after=2) != key(1, early_stop_after=3)


def test_a_best_metric_that_no_benchmark_gives_ends_the_run_at_once(folder):
    config = settings(folder, "unknown", eval_every=1)
    checkpointing = config.checkpointing.model_copy(update={"best_metric": "eval/exact_match/acuracy"})
    with pytest.raises(ConfigError, match="no benchmark gives eval/exact_match/acuracy") as caught:
        train.run(config.model_copy(update={"checkpointing": checkpointing}), options=QUIET)
    assert "eval/exact_match/accuracy" in caught.value.hint


def test_better_is_strictly_better():
    best = Best("loss", "min", patience=2)
    seen = [best.after({"loss": value}) for value in (3.0, 3.0, 2.0, float("nan"), 2.5)]
    assert seen == [True, False, True, False, False]
    assert (best.value, best.since, best.is_stale) == (2.0, 2, True)
    assert not Best("loss", "min", patience=0, value=1.0, since=99).is_stale
    assert not best.after({"reward": 1.0})
    assert best.since == 2


def test_progress_survives_as_json():
    progress = Progress(seed=3, step=5, best=0.25, since_best=2)
    state = json.loads(json.dumps(progress.as_dict(PromptCursor(4, 3))))
    assert Progress.from_dict(state) == progress
    with pytest.raises(CheckpointError, match="best"):
        Progress.from_dict({name: value for name, value in state.items() if name != "best"})


def test_items_that_are_not_there_are_told_before_the_run_has_any_file(folder):
    """So that the run may begin with other settings, as the hint asks for."""
    config = settings(folder, "itemless", eval_every=2)
    config = config.model_copy(update={"data": config.data.model_copy(update={"val_path": None})})
    preprocess.run(config)
    with pytest.raises(DataError, match="there is no validation row"):
        train.run(config, options=QUIET)
    assert not Path(config.trainer.output_dir).exists()
