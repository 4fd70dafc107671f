"""More updates for a run: it goes on to the bit, and nothing of it is lost on the way."""

from functools import partial

import pytest
import train_world
from stage_world import changed, make_checkpoint, make_config, preprocess, tree
from train_world import checkpoint, make_folder, quiet, records

from pipelines import plan, train
from pipelines import preprocess as preprocess_stage
from pipelines.errors import StageError
from pipelines.stages.identity import Identity, read_identity
from pipelines.stages.store import run_stage, state

DEFAULTS = {
    "trainer": {"num_training_steps": 2, "ppo_batch_size": 4, "num_rollout_samples": 4},
    "rewards": [{"name": "exact_match"}, {"name": "repetition_penalty"}],
    "checkpointing": {"keep_last_n": 9},
}
settings = partial(train_world.settings, defaults=DEFAULTS)
LENGTH = "trainer.num_training_steps"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = make_folder(tmp_path_factory.mktemp("train"), 40, "")
    preprocess_stage.run(settings(place, "none"))
    return place


@pytest.fixture
def short(folder, request):
    """A finished run of two updates."""
    config = settings(folder, request.node.name)
    assert train.run(config, options=quiet()).status == "ran"
    return config


def identities(config, *lengths):
    return [plan.train_identity(changed(config, LENGTH, length)) for length in lengths]


def test_a_finished_run_goes_on_to_the_bit(folder, short):
    longer, straight = changed(short, LENGTH, 4), settings(folder, "straight", trainer={"num_training_steps": 4})
    train.run(straight, options=quiet())
    found = train.state(longer)
    assert (found.status, found.reasons) == ("partial", [f"goes on with {LENGTH}: 2 -> 4"])
    assert not train.is_finished(longer)
    result = train.run(longer, options=quiet())
    assert (result.status, result.summary["step"]) == ("ran", 4)
    for name in ("model.safetensors", "optimizer.safetensors", "state.json"):
        assert (checkpoint(longer) / name).read_bytes() == (checkpoint(straight) / name).read_bytes(), name
    assert records(longer) == records(straight)
    assert train.is_finished(longer, verify=True)


def test_fewer_updates_than_it_has_made_are_refused(short):
    before = tree(train.state(short).directory)
    with pytest.raises(StageError, match=f"{LENGTH}: 2 -> 1"):
        train.run(changed(short, LENGTH, 1), options=quiet())
    assert tree(train.state(short).directory) == before


def test_another_setting_beside_is_refused(short):
    with pytest.raises(StageError, match=f"{LENGTH}: 2 -> 4"):
        train.run(changed(changed(short, LENGTH, 4), "trainer.learning_rate", 2e-3), options=quiet())


def test_it_goes_on_from_an_earlier_step_if_that_is_asked_for(short):
    longer = changed(short, LENGTH, 3)
    train.run(longer, options=quiet())
    again = changed(short, LENGTH, 4)
    train.run(again, options=quiet(resume=str(checkpoint(short, 2))))
    assert [record["step"] for record in records(again)] == [1, 2, 3, 4]


def test_any_number_that_it_has_not_passed_will_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = make_config(tmp_path)
    preprocess(config)
    make_checkpoint(config, 3)
    old, fewest, fewer, more = identities(config, 10, 2, 3, 20)
    for new, length, expected in [(fewest, 2, False), (fewer, 3, True), (more, 20, True)]:
        assert plan.run_goes_on(changed(config, LENGTH, length))(old, new) is expected


# What the store does about it; here any of the same stage goes on.


def one(beta):
    return Identity("train", 1, {"trainer": {"grpo_beta": beta}}, {})


def any_other(old, new):
    return old.stage == new.stage


def write(directory):
    (directory / "weights").write_text("learnt")


def stay(directory):
    assert (directory / "weights").read_text() == "learnt"


def test_a_run_that_fails_as_it_goes_on_is_still_there_for_both(tmp_path):
    def fail(_directory):
        raise RuntimeError("power cut")

    directory = tmp_path / "run"
    run_stage(one(0.0), directory, write)
    with pytest.raises(RuntimeError):
        run_stage(one(0.1), directory, fail, resumable=True, goes_on=any_other)
    assert read_identity(directory) == one(0.1)
    assert state(one(0.1), directory).status == "partial"
    for identity in (one(0.0), one(0.1)):
        assert run_stage(identity, directory, stay, resumable=True, goes_on=any_other).status == "ran"


@pytest.mark.parametrize("asked", ["force", "fresh"])
def test_to_begin_anew_keeps_the_run_aside(tmp_path, asked):
    run_stage(one(0.0), tmp_path / "run", write)
    run_stage(one(0.1), tmp_path / "run", write, resumable=True, goes_on=any_other, **{asked: True})
    assert (tmp_path / "run.old-1" / "weights").read_text() == "learnt"
    assert state(one(0.0), tmp_path / "run.old-1").status == "cached"
