"""The train stage on the built-in model: runs that end, go on, go back, are found finished; and their checkpoints."""

import json
import shutil
from functools import partial
from pathlib import Path

import mlx.core as mx
import mlx_lm
import numpy as np
import pytest
import train_world
from train_world import checkpoint, make_folder, quiet, records

from pipelines import backend, preprocess, train
from pipelines.errors import CheckpointError, ConfigError, StageError, TrainingError
from pipelines.models.leaves import leaves
from pipelines.models.save import load_weights
from pipelines.models.tiny import write_blank
from pipelines.monitoring.sinks import RunLog
from pipelines.training import run as run_module
from pipelines.training.loop import Loop

STEPS = 5
PLUGIN = """
from pipelines.rewards import BaseReward, RewardRegistry

@RewardRegistry.register("always_one")
class AlwaysOne(BaseReward):
    def compute(self, context):
        return 1.0

@RewardRegistry.register("letters")
class Letters(BaseReward):
    def compute(self, context):  # different texts differ
        return sum(i * ord(letter) for i, letter in enumerate(context.generated_text)) % 97 / 97

@RewardRegistry.register("letters_but_once")
class LettersButOnce(Letters):
    def compute(self, context):
        return 1.0 if context.step == 2 else super().compute(context)
"""


DEFAULTS = {
    "trainer": {"num_training_steps": STEPS, "ppo_batch_size": 4, "num_rollout_samples": 4},
    "rewards": [{"name": "letters"}],
    "checkpointing": {"save_every": 2, "keep_last_n": 9},
}
settings = partial(train_world.settings, defaults=DEFAULTS)
"""Five small updates."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Forty rows; the arrays are made once for all tests."""
    place = make_folder(tmp_path_factory.mktemp("train"), 40, PLUGIN)
    preprocess.run(settings(place, "none"))
    return place


def assert_same_run(found, expected):
    """The same weights, optimizer, state and metrics, to the bit."""
    for name in ("model.safetensors", "optimizer.safetensors", "state.json"):
        assert (checkpoint(found) / name).read_bytes() == (checkpoint(expected) / name).read_bytes(), name
    assert records(found) == records(expected)
    assert [record["step"] for record in records(found)] == list(range(1, STEPS + 1))


@pytest.fixture(scope="module")
def whole(folder):
    """A run from one end to the other."""
    config = settings(folder, "whole")
    result = train.run(config, options=quiet())
    assert (result.status, result.summary["status"], result.summary["step"]) == ("ran", "finished", STEPS)
    return config


def begun(monkeypatch, config, steps=3):
    """A run that ended after some updates as if time were up, with a checkpoint at 2 and one at its end."""
    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_must_stop", lambda self, _started: self.progress.step >= steps)
        result = train.run(config, options=quiet())
    assert (result.status, result.summary["step"]) == ("partial", steps)
    return config


def test_a_finished_run_is_found_and_left_alone(whole):
    directory = Path(whole.trainer.output_dir)
    before = {path: path.stat().st_mtime_ns for path in directory.rglob("*")}
    result = train.run(whole, options=quiet())
    assert (result.status, result.reasons, result.summary["step"]) == ("cached", [], STEPS)
    assert {path: path.stat().st_mtime_ns for path in directory.rglob("*")} == before
    assert train.is_finished(whole)


def test_logs_and_locks_may_change_afterwards(whole):
    directory = Path(whole.trainer.output_dir)
    files = {record["path"] for record in json.loads((directory / "manifest.json").read_text())["files"]}
    assert "metrics.jsonl" in files
    assert {"train.log", "checkpoints/.lock"}.isdisjoint(files)
    (directory / "checkpoints" / ".lock").unlink(missing_ok=True)
    with (directory / "train.log").open("a") as stream:
        stream.write("a note\n")
    assert train.is_finished(whole, verify=True)


def test_metrics_of_a_run(folder, whole):
    for record in records(whole):
        assert record["mismatch_kl"] < 1e-5  # the sampler's log-probabilities are the trainer's
        assert record["rewards/failures"] == 0
        assert "kl" not in record
    assert sum(record["grad_norm"] > 0 for record in records(whole)) == STEPS
    samples = (folder / "whole" / "samples.jsonl").read_text().splitlines()
    assert sorted({json.loads(line)["step"] for line in samples}) == list(range(1, STEPS + 1))


def test_the_trainer_counts_with_the_temperature_that_was_sampled_with(folder):
    config = settings(folder, "warm", trainer={"num_training_steps": 1}, generation={"temperature": 0.7})
    train.run(config, options=quiet())
    assert records(config)[0]["mismatch_kl"] < 1e-5


def test_a_run_that_stopped_goes_on_to_the_bit(folder, whole, monkeypatch, capsys):
    config = begun(monkeypatch, settings(folder, "stopped"))
    assert train.state(config).status == "partial"
    result = train.run(config)
    assert result.status == "ran"
    assert "resumed from step 3" in capsys.readouterr().err
    assert_same_run(config, whole)


def test_a_run_goes_on_with_the_blas_threads_it_began_with(folder, whole, monkeypatch):
    config = begun(monkeypatch, settings(folder, "threads"))
    threads = json.loads((checkpoint(config, 3) / "state.json").read_text())["state"]["threads"]
    assert threads == backend.threads()
    if threads is not None:  # this time the other number is the faster one
        monkeypatch.setattr(backend, "THREADS_ASKED", "")
        monkeypatch.setattr(backend, "thread_seconds", lambda: {1: 1.0, 2: 0.5} if threads == 1 else {1: 1.0})
    train.run(config, options=quiet())
    assert backend.threads() == threads
    assert_same_run(config, whole)


def test_time_that_is_up_ends_a_run_between_updates(folder, whole):
    config = settings(folder, "hurried")
    result = train.run(config, options=quiet(max_seconds=0.0))
    assert (result.status, result.summary["step"]) == ("partial", 0)
    assert train.run(config, options=quiet(max_seconds=1e9)).status == "ran"
    assert_same_run(config, whole)


def test_a_run_that_ended_at_once_before_its_first_checkpoint_starts_again(folder, whole, monkeypatch):
    config = settings(folder, "early")
    write = RunLog.metrics

    def interrupted(self, step, values):
        write(self, step, values)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunLog, "metrics", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train.run(config, options=quiet())
    assert [record["step"] for record in records(config)] == [1]
    train.run(config, options=quiet())
    assert_same_run(config, whole)


def test_a_disk_that_refuses_is_an_error_with_a_way_out(folder, whole):
    config = settings(folder, "refused")
    train.run(config, options=quiet(max_seconds=0.0))
    in_the_way = folder / "refused" / "checkpoints"
    in_the_way.write_text("a file where the directory should be")
    with pytest.raises(CheckpointError, match="checkpoint of step 2 cannot be saved") as told:
        train.run(config, options=quiet())
    assert "free space" in told.value.hint
    in_the_way.unlink()
    train.run(config, options=quiet())
    assert_same_run(config, whole)


def test_going_back_to_a_step_drops_what_came_after(folder, whole, monkeypatch):
    config = begun(monkeypatch, settings(folder, "back"), steps=4)
    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_must_stop", lambda self, _started: self.progress.step >= 3)
        train.run(config, options=quiet(resume="2"))
    assert [record["step"] for record in records(config)] == [1, 2, 3]
    assert not checkpoint(config, 4).exists()
    train.run(config, options=quiet(resume=str(checkpoint(config, 2))))
    assert_same_run(config, whole)


def test_a_step_that_is_not_there_costs_nothing(folder, monkeypatch):
    config = begun(monkeypatch, settings(folder, "nowhere"))
    with pytest.raises(CheckpointError, match="step_000001 is no usable checkpoint") as told:
        train.run(config, options=quiet(resume="1"))
    assert told.value.exit_code == 2
    assert "2, 3" in told.value.hint
    assert [record["step"] for record in records(config)] == [1, 2, 3]
    assert checkpoint(config, 3).is_dir()


def test_a_checkpoint_of_another_run_costs_nothing(folder, monkeypatch):
    other = begun(monkeypatch, settings(folder, "other_seed", trainer={"seed": 5}), steps=2)
    config = begun(monkeypatch, settings(folder, "faithful"))
    with pytest.raises(StageError, match=r"trainer\.seed: 5 -> 0") as told:
        train.run(config, options=quiet(resume=str(checkpoint(other, 2))))
    assert "model.model_path" in told.value.hint
    stray = shutil.copytree(checkpoint(other, 2), folder / "strays" / "step_000002")
    with pytest.raises(CheckpointError, match="of a run with seed 5"):
        train.run(config, options=quiet(resume=str(stray)))
    assert checkpoint(config, 3).is_dir()
    assert [record["step"] for record in records(config)] == [1, 2, 3]


def test_a_damaged_checkpoint_is_passed_over_loudly(folder, whole, monkeypatch, caplog):
    config = begun(monkeypatch, settings(folder, "damaged"))
    weights = checkpoint(config, 3) / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-5] ^= 1
    weights.write_bytes(content)
    train.run(config, options=quiet())
    log = (Path(config.trainer.output_dir) / "train.log").read_text()
    for text in (caplog.text, log):
        assert "step_000003 is damaged and not used: model.safetensors: content changed" in text
        assert "step_000002 is used instead" in text
    assert "resumed from step 2" in log
    assert_same_run(config, whole)


def test_without_optimizer_state_a_resume_warns_and_keeps_the_schedule(folder, monkeypatch, capsys):
    """The schedule counts optimizer steps: an update without spread takes none, before and after the resume."""
    config = settings(
        folder,
        "stateless",
        trainer={"lr_schedule_config": {"name": "linear_schedule", "arguments": [1e-3, 0.0, 5]}},
        rewards=[{"name": "letters_but_once"}],
        checkpointing={"save_every": 2, "save_optimizer_state": False},
    )
    begun(monkeypatch, config)
    assert not (checkpoint(config, 3) / "optimizer.safetensors").exists()
    train.run(config, options=quiet())
    assert "warning: the checkpoint has no optimizer state" in capsys.readouterr().err
    assert "no optimizer state" in (Path(config.trainer.output_dir) / "train.log").read_text()
    rates = [record.get("learning_rate", 0.0) for record in records(config)]
    assert rates == pytest.approx([1e-3, 0, 8e-4, 6e-4, 4e-4], rel=1e-4)


def test_a_drawn_seed_is_drawn_once(folder, monkeypatch):
    drawn = iter([11, 22, 33])
    monkeypatch.setattr(run_module.secrets, "randbelow", lambda _limit: next(drawn))
    config = begun(monkeypatch, settings(folder, "drawn", trainer={"seed": -1}))
    train.run(config, options=quiet())
    seeds = [json.loads((checkpoint(config, s) / "state.json").read_text())["state"]["seed"] for s in (2, 3, 4, 5)]
    assert seeds == [11] * 4
    assert "seed 11" in (Path(config.trainer.output_dir) / "train.log").read_text()
    given = settings(folder, "given", trainer={"seed": 11})
    train.run(given, options=quiet())
    assert_same_run(config, given)


def test_other_settings_are_told_with_three_ways_out(folder, whole):
    changed = settings(folder, "whole", trainer={"grpo_beta": 0.5})
    with pytest.raises(StageError, match=r"trainer\.grpo_beta: 0\.0 -> 0\.5") as told:
        train.run(changed, options=quiet())
    for way in ("trainer.output_dir", "--fresh", "settings back"):
        assert way in told.value.hint
    assert train.is_finished(whole)


def test_fresh_keeps_the_old_run_beside(folder, whole):
    shutil.copytree(whole.trainer.output_dir, folder / "again")
    changed = settings(folder, "again", trainer={"num_training_steps": 1})
    result = train.run(changed, options=quiet(), fresh=True)
    assert (result.status, result.summary["step"]) == ("ran", 1)
    assert [record["step"] for record in records(changed)] == [1]
    assert (folder / "again.old-1" / "checkpoints" / "step_000005").is_dir()


def spied(monkeypatch):
    """The model of each run to come, and a copy of the weights it starts from."""
    kept = []
    build = run_module.build

    def spy(*arguments):
        parts = build(*arguments)
        start = {name: np.array(leaf) for name, leaf in leaves(parts.loaded.model.parameters()).items()}
        kept.append((parts.loaded, start))
        return parts

    monkeypatch.setattr(run_module, "build", spy)
    return kept


@pytest.mark.parametrize("lora", [False, True])
def test_mlx_lm_loads_a_checkpoint_and_gives_the_trainers_logits(folder, monkeypatch, lora):
    runs = spied(monkeypatch)
    config = settings(folder, f"loadable-{lora}", model={"use_lora": lora}, trainer={"num_training_steps": 2})
    train.run(config, options=quiet())
    trained, _ = runs[0]
    place = checkpoint(config, 2)
    model, tokenizer = (
        mlx_lm.utils.load(str(trained.directory), adapter_path=str(place)) if lora else mlx_lm.utils.load(str(place))
    )
    prompt = tokenizer.apply_chat_template([{"role": "user", "content": "12+34=?"}], add_generation_prompt=True)
    tokens = mx.array([prompt])
    untrained = mlx_lm.utils.load(str(trained.directory))[0]
    assert mx.array_equal(model(tokens), trained.model(tokens))
    assert not mx.allclose(model(tokens), untrained(tokens), atol=1e-3)
    assert mlx_lm.generate(model, tokenizer, prompt=prompt, max_tokens=4)


@pytest.mark.parametrize("lora", [False, True])
def test_every_trainable_leaf_moves(folder, monkeypatch, lora):
    """The first update moves all of a full model; under LoRA, A waits until B is no longer zero."""
    runs = spied(monkeypatch)
    steps = 2 if lora else 1
    config = settings(folder, f"moving-{lora}", model={"use_lora": lora}, trainer={"num_training_steps": steps})
    train.run(config, options=quiet())
    model, start = runs[0][0].model, runs[0][1]
    trainable = leaves(model.trainable_parameters())
    moved = {n for n, leaf in leaves(model.parameters()).items() if (np.array(leaf) != start[n]).any()}
    assert moved == trainable.keys()
    assert (len(moved) < len(start)) == lora
    if lora:
        assert {name.rpartition(".")[2] for name in moved} == {"lora_a", "lora_b"}
        assert load_weights(checkpoint(config, 2) / "adapters.safetensors").keys() == moved


def test_dropout_stays_out_of_the_rollouts_and_resumes_to_the_bit(folder, monkeypatch):
    changes = {"model": {"use_lora": True, "lora_dropout": 0.3}, "trainer": {"grpo_beta": 0.1, "learning_rate": 0.01}}
    plain = settings(folder, "dropout", **changes)
    train.run(plain, options=quiet())
    stopped = begun(monkeypatch, settings(folder, "dropout-stopped", **changes))
    train.run(stopped, options=quiet())
    for name in ("adapters.safetensors", "optimizer.safetensors", "state.json"):
        assert (checkpoint(stopped) / name).read_bytes() == (checkpoint(plain) / name).read_bytes(), name
    assert records(stopped) == records(plain)
    kl = [record["kl"] for record in records(plain)]
    assert kl[0] == 0
    assert min(kl[1:]) > 0
    gaps = [record["mismatch_kl"] for record in records(plain)]
    assert gaps[0] < 1e-5 < max(gaps)  # B is zero at first; later the gradient sees dropout and the sampler does not


def test_sft_learns_the_references(folder):
    write_blank(folder / "blank")
    changes = {"algorithm": "sft", "num_training_steps": 15, "learning_rate": 2e-3}
    config = settings(folder, "sft", trainer=changes, model={"model_path": str(folder / "blank")})
    preprocess.run(config)
    train.run(config, options=quiet())
    losses = [record["loss"] for record in records(config)]
    assert losses[0] > 4
    assert max(losses[-3:]) < 0.75 * losses[0]
    assert "reward" not in records(config)[0]


def test_updates_that_teach_nothing_take_no_step_and_end_the_run(folder):
    config = settings(
        folder,
        "dead",
        trainer={"abort_after_dead_updates": 3},
        rewards=[{"name": "always_one"}],
    )
    with pytest.raises(TrainingError, match="last 3 updates taught nothing"):
        train.run(config, options=quiet())
    assert [record["groups/all_equal"] for record in records(config)] == [4, 4, 4]
    assert all("grad_norm" not in record for record in records(config))
    places = (train_world.ROWS.parents[1] / "tiny-model", checkpoint(config, 2))
    start, end = (load_weights(place / "model.safetensors") for place in places)
    assert all(mx.array_equal(start[name], leaf) for name, leaf in end.items())


def test_an_update_of_tokens_that_have_no_weight_takes_no_step(folder):
    """Every completion is cut off while it thinks, and thinking teaches nothing."""
    dual = {"num_training_steps": 1, "use_dual_gradients": True, "thinking_gradient_weight": 0}
    config = settings(folder, "unweighted", trainer=dual, data={"max_gen_len": 4})
    assert train.run(config, options=quiet()).status == "ran"
    (record,) = records(config)
    assert record["groups/all_equal"] < 4
    assert record["completions/mean_answer_length"] == 0
    assert "grad_norm" not in record


def test_what_cannot_work_is_told_before_any_work(folder):
    for changes, words in (
        ({"trainer": {"algorithm": "grp"}}, "trainer.algorithm"),
        ({"generation": {"temperature": 0.0}}, "generation.temperature"),
        ({"plugins": ["nowhere.py"]}, "nowhere.py"),
    ):
        config = settings(folder, "never", **changes)
        with pytest.raises(ConfigError, match=words):
            train.check(config)
    assert not (folder / "never").exists()
