"""Loading: precedence, origins, and errors that name file, line, key and what was meant."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.config import ExperimentConfig, load
from pipelines.config.fields import dotted, inside_list, walk
from pipelines.config.loader import resolve
from pipelines.config.sources import variable_name
from pipelines.config.yaml_writer import as_yaml
from pipelines.errors import ConfigError

ACCEPTANCE = Path(__file__).with_name("acceptance.yaml")


@pytest.fixture
def write(tmp_path):
    def write_file(text, name="c.yaml"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write_file


def refusal(files=(), overrides=(), environ=None):
    with pytest.raises(ConfigError) as caught:
        resolve(files, overrides, environ or {})
    assert caught.value.exit_code == 2
    return caught.value


def test_the_acceptance_configuration_loads_unchanged():
    loaded = resolve([ACCEPTANCE], [], {})
    trainer = loaded.config.trainer
    assert trainer.learning_rate == 1e-5
    assert trainer.lr_schedule_config is not None
    assert trainer.lr_schedule_config.arguments == (1e-5, 1000, 1e-6)
    assert trainer.lr_schedule_config.warmup == 250
    assert (trainer.prompts_per_update, trainer.completions_per_update) == (8, 8)
    assert [reward.name for reward in loaded.config.rewards][3] == "semantic_similarity"
    assert loaded.config.rewards[3].config["verbosity_penalty_strength"] == 0.01
    assert loaded.config.checkpointing.save_optimizer_state is False
    assert len(loaded.warnings) == 3


def test_the_acceptance_configuration_survives_a_round_trip():
    config = resolve([ACCEPTANCE], [], {}).config
    assert ExperimentConfig.model_validate(config.model_dump()) == config
    assert ExperimentConfig.model_validate(config.model_dump(mode="json")) == config
    assert ExperimentConfig.model_validate_json(config.model_dump_json()) == config


def test_precedence(write):
    first = write("trainer: {seed: 1, num_training_steps: 11, grpo_beta: 0.1, loss: {epsilon: 0.1}}", "1.yaml")
    second = write("trainer: {num_training_steps: 12, grpo_beta: 0.2, loss: {delta: 3}}", "2.yaml")
    environ = {"GRPO_TRAINER__GRPO_BETA": "0.3", "GRPO_TRAINER__LEARNING_RATE": "3e-5"}
    loaded = resolve([first, second], ["trainer.learning_rate=4e-5"], environ)
    trainer = loaded.config.trainer
    assert (trainer.seed, trainer.num_training_steps, trainer.grpo_beta, trainer.learning_rate) == (1, 12, 0.3, 4e-5)
    assert (trainer.loss.epsilon, trainer.loss.delta, trainer.loss.type) == (0.1, 3, "dapo")
    origins = {key: loaded.origins[f"trainer.{key}"] for key in ("seed", "grpo_beta", "learning_rate", "loss.type")}
    assert origins == {
        "seed": f"{first}:1",
        "grpo_beta": "environment GRPO_TRAINER__GRPO_BETA",
        "learning_rate": "--set",
        "loss.type": "default",
    }


def test_the_more_specific_variable_and_the_later_set_win():
    environ = {"GRPO_TRAINER__LOSS__EPSILON": "0.3", "GRPO_TRAINER": "{seed: 5, loss: {epsilon: 0.1}}"}
    config = resolve([], ["trainer.seed=6", "trainer.seed=7"], environ).config
    assert (config.trainer.loss.epsilon, config.trainer.seed) == (0.3, 7)


def test_lists_are_replaced_and_their_origins_too(write):
    base = write("rewards:\n- {name: a, weight: 2}\n- {name: b}\ngeneration: {stop: [x, y]}")
    loaded = resolve([base], ["rewards=[{name: c}]", "generation.stop=[z]"], {})
    assert [(reward.name, reward.weight) for reward in loaded.config.rewards] == [("c", 1.0)]
    assert loaded.config.generation.stop == ("z",)
    assert loaded.origins["rewards.0.name"] == "--set"
    assert loaded.origins["rewards.0.weight"] == "default"
    assert "rewards.1.name" not in loaded.origins


def test_evaluations_find_the_best_unless_a_metric_is_chosen():
    def best(*overrides):
        return load([], overrides).config.checkpointing.best_metric

    own = "evaluation=[{name: sums}, {name: exact_match}]"
    assert best() == best(own) == "reward"
    assert best("trainer.eval_every=5") == "eval/exact_match/accuracy"
    assert best("trainer.eval_every=5", own, "checkpointing.save_every=9") == "eval/sums/accuracy"
    assert best("trainer.eval_every=5", "checkpointing.best_metric=reward") == "reward"
    assert best("trainer.eval_every=5", "evaluation=[]") == "reward"


def test_a_section_can_be_switched_off_again():
    config = resolve([ACCEPTANCE], ["trainer.lr_schedule_config=null"], {}).config
    assert config.trainer.lr_schedule_config is None


def test_without_files_config_yaml_is_read_if_there_is_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load().config == ExperimentConfig()
    Path("config.yaml").write_text("trainer: {seed: 9}")
    loaded = load()
    assert loaded.config.trainer.seed == 9
    assert loaded.origins["trainer.seed"] == "config.yaml:1"
    monkeypatch.setenv("GRPO_TRAINER__SEED", "10")
    assert load().config.trainer.seed == 10


def test_every_leaf_has_an_origin():
    loaded = resolve([ACCEPTANCE], [], {})
    leaves = {dotted(key.path) for key in walk(ExperimentConfig) if key.nested is None}
    single = {name for name in leaves if name.split(".")[0] not in ("rewards", "evaluation")}
    assert single <= set(loaded.origins)
    assert loaded.origins["rewards.3.config.method"] == f"{ACCEPTANCE}:31"


SECTIONS = ["", *sorted({dotted(key.path) for key in walk(ExperimentConfig) if key.nested and not key.many})]


@pytest.mark.parametrize("section", SECTIONS)
@settings(deadline=None, max_examples=15)
@given(word=st.from_regex(r"[a-z]{3,8}_[a-z]{3,8}x", fullmatch=True))
def test_an_unknown_key_at_any_level_is_refused_and_named(section, word):
    key = f"{section}.{word}" if section else word
    error = refusal(overrides=[f"{key}=1"])
    assert f"--set: {key}: unknown key" in error.message
    assert error.hint


@pytest.mark.parametrize("key", [key for key in walk(ExperimentConfig) if not inside_list(ExperimentConfig, key.path)])
def test_a_misspelt_key_is_recognised(key):
    path = (*key.path[:-1], key.path[-1] + "s" if not key.path[-1].endswith("s") else key.path[-1][:-1])
    assert f"did you mean {dotted(key.path)}?" in refusal(overrides=[f"{dotted(path)}=1"]).hint
    assert f"did you mean {variable_name(key.path)}?" == refusal(environ={variable_name(path): "1"}).hint


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("trainer:\n  learning_rat: 1", "c.yaml:2: trainer.learning_rat: unknown key", "trainer.learning_rate?"),
        ("\nlearning_rate: 1", "c.yaml:2: learning_rate: unknown key", "trainer.learning_rate?"),
        ("rewards:\n- name: x\n  wieght: 1", "c.yaml:3: rewards.0.wieght: unknown key", "rewards.0.weight?"),
        ("rewards:\n- weight: 1", "c.yaml:2: rewards.0.name is missing", "Name the reward"),
        ("rewards:\n- exact_match", "c.yaml:2: rewards.0 should be keys and values, not 'exact_match'", ""),
        ("rewards: {name: x}", "c.yaml:1: rewards should be a list", ""),
        ("trainer:", "c.yaml:1: trainer should be keys and values, not null", "leave trainer out"),
        ("trainer: {loss: {type: dapoo}}", "trainer.loss.type should be 'grpo', ", "did you mean dapo?"),
        ("trainer: {seed: true}", "trainer.seed should be a whole number, not true", ""),
        ("trainer: {seed: 1.0}", "trainer.seed should be a whole number, not 1.0", "write 1"),
        ("trainer: {seed: 1_0}", "trainer.seed should be a whole number, not '1_0'", "write 10 without"),
        ("trainer: {learning_rate: '1e-5'}", "trainer.learning_rate should be a number", "write 1e-5 without quotes"),
        ("trainer: {learning_rate: false}", "trainer.learning_rate should be a number, not false", ""),
        ("model: {use_lora: yes}", "model.use_lora should be true or false, not 'yes'", "write true or false"),
        ("model: {use_lora: 1}", "model.use_lora should be true or false, not 1", "write true or false"),
        ("model: {use_lora: 'true'}", "model.use_lora should be true or false, not 'true'", "without quotes"),
        ("data: {prompt_key: 3}", "data.prompt_key should be text, not 3", "quotes"),
        ("generation: {stop: x}", "generation.stop should be a list, not 'x'", ""),
        ("trainer: {micro_batch_tokens: x}", "micro_batch_tokens should be 'auto' or a whole number, not 'x'", ""),
        ("trainer: {micro_batch_tokens: 0}", "micro_batch_tokens should be 'auto' or greater than or equal to 1", ""),
        (
            "trainer: {lr_schedule_config: {name: constant, arguments: [x]}}",
            "arguments.0 should be a whole number or",
            "",
        ),
        ("- a", "c.yaml:1: a configuration file holds keys and values", ""),
        ("model_config: 1", "c.yaml:1: model_config: unknown key", ""),
        ("self: 1\n_env_file: 2", "c.yaml:1: self: unknown key; ", ""),
    ],
)
def test_errors_name_place_key_and_remedy(write, text, message, hint):
    error = refusal([write(text)])
    assert message in error.message
    assert hint in error.hint
    assert error.hint
    assert "\n" not in error.message + error.hint


def test_all_problems_are_told_at_once(write):
    bad = dict.fromkeys(("seed", "learning_rate", "grpo_beta", "num_iterations", "eval_every"), "x")
    error = refusal([write("\n".join(["trainer:", *(f"  {name}: {value}" for name, value in bad.items())]))])
    assert error.message.count("c.yaml:") == 4
    assert error.message.endswith("and 1 more")
    assert error.hint.endswith("`grpo config check` lists all, each with its hint")


@pytest.mark.parametrize(
    ("assignment", "part"),
    [
        ("trainer.seed", "not of the form key=value"),
        ("=1", "not of the form key=value"),
        ("trainer..seed=1", "not of the form key=value"),
        ("trainer.seed=", "trainer.seed has no value"),
        ("trainer.seed=[1", "--set: trainer.seed: "),
        ("trainer.seed=010", "trainer.seed: 010 is octal"),
        ("rewards.0.weight=1", "an item of a list"),
        ("trainer.seed.x=1", "trainer.seed should be a whole number"),
        ("trainer=3", "trainer should be keys and values"),
        ("data.system_prompt=You are: kind", "data.system_prompt should be text"),
    ],
)
def test_assignments_that_cannot_be_used(assignment, part):
    error = refusal(overrides=[assignment])
    assert part in error.message
    assert error.hint


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("GRPO_LEARNING_RATE", "did you mean GRPO_TRAINER__LEARNING_RATE?"),
        ("GRPO_TRAINER_LEARNING_RATE", "did you mean GRPO_TRAINER__LEARNING_RATE?"),
        ("GRPO_REWARDS__0__WEIGHT", "GRPO_REWARDS='[...]'"),
        ("GRPO_WHAT_IS_THIS", "GRPO_SECTION__KEY"),
        ("GRPO_", "GRPO_SECTION__KEY"),
    ],
)
def test_unknown_variables_are_refused(name, hint):
    error = refusal(environ={name: "1"})
    assert error.message.startswith(f"environment {name}: ")
    assert hint in error.hint


def test_other_variables_are_left_alone():
    assert resolve([], [], {"PATH": "x", "GRPOX": "1", "grpo_trainer__seed": "2"}).config == ExperimentConfig()


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "latin.yaml").write_bytes("model: {model_path: é}".encode("latin-1"))
    assert "no such file" in refusal([tmp_path / "none.yaml"]).message
    assert "not UTF-8" in refusal([tmp_path / "latin.yaml"]).message
    assert "directory" in refusal([tmp_path]).message


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path):
    (tmp_path / "bom.yaml").write_text("trainer: {seed: 4}", encoding="utf-8-sig")
    assert resolve([tmp_path / "bom.yaml"], [], {}).config.trainer.seed == 4


numbers = st.floats(0, 1e6, allow_nan=False) | st.integers(0, 10**6)
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)


@settings(deadline=None)
@given(
    rate=numbers,
    prompt=texts,
    stop=st.lists(texts.filter(bool), max_size=3),
    schedule=st.lists(numbers, min_size=1, max_size=1),
)
def test_values_survive_set_and_environment(rate, prompt, stop, schedule):
    values = {
        "trainer.learning_rate": rate,
        "data.system_prompt": prompt,
        "generation.stop": stop,
        "trainer.lr_schedule_config": {"name": "constant", "arguments": schedule},
    }
    written = {key: as_yaml(value) for key, value in values.items()}
    by_set = resolve([], [f"{key}={text}" for key, text in written.items()], {}).config
    environ = {variable_name(tuple(key.split("."))): text for key, text in written.items()}
    assert resolve([], [], environ).config == by_set
    assert by_set.trainer.learning_rate == rate
    assert by_set.data.system_prompt == prompt
    assert by_set.generation.stop == tuple(stop)
    assert by_set.trainer.lr_schedule_config is not None
    assert by_set.trainer.lr_schedule_config.arguments == tuple(schedule)
