"""`grpo config`: show, check, diff and schema as a user calls them."""

import json
from pathlib import Path

import pytest

from grpo_cli.app import run
from pipelines.config.loader import resolve
from pipelines.stages.identity import Identity, write_identity

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def grpo(tmp_path, monkeypatch, capsys):
    """Runs a command in an empty directory: its exit code, and the lines of stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*words):
        code = run(["config", *words])
        heard = capsys.readouterr()
        return code, heard.out.splitlines(), heard.err.splitlines()

    return call


def test_without_a_command_it_shows_its_help(grpo):
    code, out, _ = grpo()
    assert code == 0
    assert all(any(f" {name} " in line for line in out) for name in ("show", "check", "diff", "schema"))


# show


def test_show_tells_values_with_their_origins(grpo, monkeypatch):
    Path("config.yaml").write_text("trainer:\n  seed: 3\nrewards: [{name: exact_match, weight: 2}]\n")
    monkeypatch.setenv("GRPO_TRAINER__GRPO_BETA", "0.5")
    code, out, err = grpo("show", "-s", "data.limit=7")
    assert (code, err) == (0, [])
    assert "trainer.seed = 3  (config.yaml:2)" in out
    assert "trainer.grpo_beta = 0.5  (environment GRPO_TRAINER__GRPO_BETA)" in out
    assert "data.limit = 7  (--set)" in out
    assert "trainer.algorithm = grpo  (default)" in out
    assert grpo("show", "--changed", "-s", "data.limit=7")[1] == [
        "trainer.grpo_beta = 0.5  (environment GRPO_TRAINER__GRPO_BETA)",
        "trainer.seed = 3  (config.yaml:2)",
        "data.limit = 7  (--set)",
        "rewards.0.weight = 2.0  (config.yaml:3)",
    ]
    assert grpo("show", "--json", "trainer.seed")[1] == [
        '{"key": "trainer.seed", "value": 3, "origin": "config.yaml:2", "changed": true}'
    ]


def test_show_yaml_loads_to_the_same(grpo):
    words = ["-s", "trainer.seed=3", "-s", "rewards=[{name: a, config: {x: [1]}}, {name: b}]"]
    config = resolve([], words[1::2], {}).config
    for options, most in (([], 400), (["--changed"], 12)):
        code, out, _ = grpo("show", "--yaml", *options, *words)
        Path("out.yaml").write_text("\n".join(out))
        assert code == 0
        assert len(out) <= most
        assert resolve(["out.yaml"], [], {}).config == config
    assert grpo("show", "--yaml", "--changed")[1] == ["{}"]


@pytest.mark.parametrize("words", [["trainer.sed"], ["--yaml", "--json"], ["-c", "gone.yaml"]])
def test_show_refuses_with_a_hint(grpo, words):
    code, out, err = grpo("show", *words)
    assert (code, out) == (2, [])
    assert [line.partition(":")[0] for line in err] == ["error", "hint"]


# check

BAD = """\
trainer:
  learning_rat: 1
  seed: x
  use_dual_gradients: true
  thinking_layer_start: 9
  algorithm: grop
model: {quantize_bits: 4}
data: {train_path: nope.jsonl, val_path: gone.jsonl}
rewards:
  - {name: exact_match, config: {require_mark: 3, x: 1}}
  - {name: exact_mach}
evaluation: [{name: exact_mach}]
plugins: []
"""


def test_check_lists_everything(grpo):
    Path("bad.yaml").write_text(BAD)
    code, out, err = grpo("check", "bad.yaml")
    errors = [line for line in err if line.startswith("error: ")]
    assert (code, out) == (2, [f"bad.yaml: {len(errors)} problems"])
    assert len(err) == 2 * len(errors)  # each has a hint
    for place in (
        "bad.yaml:2: trainer.learning_rat: ",
        "bad.yaml:3: trainer.seed should be",
        "bad.yaml:5: trainer.thinking_layer_start is 9, but model.model_path has 3 layers",
        "bad.yaml:6: trainer.algorithm: ",
        "model.quantize_bits (bad.yaml:7) and model.use_lora (default): ",
        "bad.yaml:8: data.train_path: ",
        "bad.yaml:8: data.val_path: ",
        "bad.yaml:10: rewards.0.config.require_mark should be true or false, not ",
        "bad.yaml:10: rewards.0.config.x: ",
        "bad.yaml:11: rewards.1.name: ",
        "bad.yaml:12: evaluation.0: ",
    ):
        assert sum(line.startswith(f"error: {place}") for line in err) == 1, place


def test_check_of_several_files_on_top_of_one(grpo):
    Path("base.yaml").write_text("trainer: {learning_rate: 1.0e-5}\n")
    Path("one.yaml").write_text("trainer: {seed: 1}\n")
    Path("two.yaml").write_text("trainer: {lr_schedule_config: {name: constant, arguments: [1.0]}}\n")
    code, out, err = grpo("check", "-c", "base.yaml", "one.yaml", "two.yaml")
    assert (code, out) == (0, ["base.yaml + one.yaml: nothing wrong", "base.yaml + two.yaml: 1 warning"])
    assert err[0].startswith("warning: trainer.learning_rate is 1e-05 but")
    assert grpo("check")[1] == ["default: nothing wrong"]


def test_check_as_json(grpo):
    Path("config.yaml").write_text("trainer: {sed: 1}\n")
    code, out, err = grpo("check", "--json")
    assert (code, err) == (2, [])
    (record,) = map(json.loads, out)
    assert record["file"] == "config.yaml"
    assert record["problems"] == [
        {
            "keys": {"trainer.sed": "config.yaml:1"},
            "message": "config.yaml:1: trainer.sed: unknown key",
            "hint": "did you mean trainer.seed?",
        }
    ]


def test_check_imports_plugins_and_says_what_else_only_commands_would(grpo):
    Path("own_check.py").write_text(
        "from pipelines.rewards import RewardRegistry\n\n\n"
        "@RewardRegistry.register_function('own_check')\ndef own_check(context):\n    return 1.0\n"
    )
    words = ["-s", "rewards=[{name: own_check}]", "-s", "plugins=[own_check.py]"]
    assert grpo("check", *words)[0] == 0
    code, _, err = grpo("check", *words, "-s", "generation.temperature=0")
    assert code == 2
    assert err[0].startswith("error: --set: generation.temperature: 0 gives every completion")
    Path("broken_check.py").write_text("1 / 0\n")
    code, _, err = grpo("check", "-s", "rewards=[{name: unheard}]", "-s", "plugins=[broken_check.py]")
    assert code == 2
    assert err[0].startswith("error: --set: plugins.0: ")
    assert "ZeroDivisionError" in err[0]
    assert len(err) == 2  # whether the reward is unknown cannot be told


def test_check_looks_at_the_first_row(grpo):
    Path("rows.jsonl").write_text('{"question": "1 + 1", "completion": "2"}\n' * 3)
    words = ["-s", "data.train_path=rows.jsonl", "-s", "data.val_path=null"]
    code, _, err = grpo("check", *words)
    assert code == 2
    assert err[0] == (
        "error: --set: data.train_path: rows.jsonl:1: no field 'prompt'; the row has 'question', 'completion'"
    )
    code, out, err = grpo("check", *words, "-s", "data.on_bad_row=skip")
    assert (code, out) == (0, ["default: 1 warning"])
    assert err[0].startswith("warning: data.train_path: rows.jsonl:1: no field 'prompt'")
    assert grpo("check", *words, "-s", "data.prompt_key=question")[0] == 0


def test_check_knows_models_that_are_not_here(grpo):
    assert grpo("check", "-s", "model.model_path=nobody/knows")[1:] == (
        ["default: 1 warning"],
        ["warning: model.model_path: would be downloaded from the hub: nobody/knows (revision main)"],
    )
    gone = grpo("check", "-s", "model.model_path=./gone")
    assert gone[:2] == (2, ["default: 1 problem"])
    assert gone[2][0] == "error: --set: model.model_path: no model directory at ./gone"
    Path("run").mkdir()
    Path("run/identity.json").touch()
    assert grpo("check", "-s", "model.model_path=run")[2][0] == "error: run is a run, not a model"


# diff


def test_diff_of_files_defaults_and_here(grpo):
    Path("a.yaml").write_text("trainer: {seed: 1}\n")
    Path("config.yaml").write_text("trainer: {seed: 2, grpo_beta: 0.1}\n")
    code, out, _ = grpo("diff", "a.yaml", "config.yaml")
    assert (code, out) == (0, ["trainer.grpo_beta: 0.0 -> 0.1", "trainer.seed: 1 -> 2"])
    assert grpo("diff", "a.yaml")[1] == out
    assert grpo("diff", "a.yaml", "--check")[0] == 3
    assert grpo("diff", "default", "a.yaml")[1] == ["trainer.seed: 0 -> 1"]
    assert grpo("diff", "--json", "default", "a.yaml")[1] == ['{"key": "trainer.seed", "before": 0, "after": 1}']
    code, out, err = grpo("diff", "default", "default", "--check")
    assert (code, out, err) == (0, [], ["nothing differs"])


def test_diff_with_what_a_run_recorded(grpo):
    recorded = {"trainer": {"grpo_beta": 0.0, "seed": 1}, "rewards": [{"name": "r", "weight": 1.0, "config": {}}]}
    Path("run/checkpoints").mkdir(parents=True)
    write_identity(Identity("train", 1, recorded, {"model": "0" * 64}), Path("run"))
    for place in ("run", "run/checkpoints"):
        code, out, err = grpo("diff", place, "-s", "trainer.seed=2", "-v")
        assert (code, out) == (0, ["trainer.seed: 1 -> 2", "rewards.0.name: r -> exact_match"])
        assert "not compared" in err[0]
        assert "model" in err[1].split(", ")


@pytest.mark.parametrize("words", [["."], ["gone.yaml"], ["default", "default", "-s", "trainer.seed=1"]])
def test_diff_refuses_with_a_hint(grpo, words):
    code, out, err = grpo("diff", *words)
    assert (code, out) == (2, [])
    assert [line.partition(":")[0] for line in err] == ["error", "hint"]


# schema


def test_schema_knows_rewards_those_of_plugins_too(grpo):
    Path("rewards").mkdir()
    Path("rewards/mine.py").write_text("")
    code, out, _ = grpo("schema")
    schema = json.loads("\n".join(out))
    assert code == 0
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    names = schema["then"]["properties"]["rewards"]["items"]["properties"]["name"]["enum"]
    assert {"exact_match", "code_execution", "mine"} <= set(names)
    Path("own_schema.py").write_text(
        "from pipelines.rewards import RewardRegistry\n\n\n"
        "@RewardRegistry.register_function('own_schema')\ndef own_schema(context):\n    return 1.0\n"
    )
    assert grpo("schema", "-s", "plugins=[own_schema.py]", "--output", "schema.json")[1] == ["schema.json"]
    assert "own_schema" in Path("schema.json").read_text()
    assert grpo("schema", "--output", "schema.json")[0] == 0  # an older schema may be replaced, nothing else
    code, out, err = grpo("schema", "--output", "own_schema.py")
    assert (code, out, err[0]) == (2, [], "error: own_schema.py exists and is no schema")
    assert Path("own_schema.py").read_text().startswith("from pipelines")
