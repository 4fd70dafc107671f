"""Templates and the reference page are written from the schema, load, and are complete."""

import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.config import ExperimentConfig, TrainerConfig
from pipelines.config.advanced import layer_settings
from pipelines.config.fields import keys_of, walk
from pipelines.config.layers import LayerRanges, layer_ranges
from pipelines.config.loader import resolve
from pipelines.config.reference import reference
from pipelines.config.strict_yaml import parse
from pipelines.config.templates import TEMPLATES, render_template
from pipelines.errors import ConfigError
from pipelines.rewards import RewardComposer

DOCS = Path(__file__).parents[2] / "docs"
templates = pytest.mark.parametrize("name", TEMPLATES)


def load_text(text, path):
    path.write_text(text, encoding="utf-8")
    return resolve([path], [], {})


@templates
def test_a_template_loads_quietly(name, tmp_path):
    loaded = load_text(render_template(name), tmp_path / "c.yaml")
    assert loaded.warnings == []
    assert loaded.config.model.model_path == "builtin:tiny"
    assert loaded.config.data.train_path == "builtin:arithmetic"


@templates
def test_every_line_with_a_key_carries_a_comment(name):
    """Behind it, or in the line above where that would be too long."""
    lines = render_template(name, num_layers=3).splitlines()
    assert max(map(len, lines)) <= 120
    for above, line in pairwise(lines):
        if line and not line.lstrip().startswith("#"):
            assert re.fullmatch(r" *(- )?\w+:.*  # \S.+", line) or re.fullmatch(r" *# \S.+", above), line


@templates
def test_yaml_1_1_readers_see_the_same_values(name):
    text = render_template(name)
    assert yaml.safe_load(text) == parse(text, str).value


def test_the_templates_grow():
    count = {name: len(re.findall(r"^ *(- )?\w+:", render_template(name), re.MULTILINE)) for name in TEMPLATES}
    assert 10 <= count["minimal"] <= 20 < count["standard"] < count["advanced"]


def test_the_advanced_template_shows_every_key():
    shown = parse(render_template("advanced"), str).value

    def missing(section, values):
        for name, key in keys_of(section).items():
            if name not in values:
                yield key.path
            elif key.nested is not None:
                yield from missing(key.nested, values[name][0] if key.many else values[name])

    assert list(missing(ExperimentConfig, shown)) == []


def test_advanced_switches_on_what_it_says(tmp_path):
    config = load_text(render_template("advanced", num_layers=3), tmp_path / "c.yaml").config
    trainer = config.trainer
    assert trainer.use_dual_gradients
    assert layer_ranges(trainer, 3) == LayerRanges(range(2), range(1, 3), ())
    assert trainer.use_sft_on_answer
    assert trainer.sft_weight > 0
    assert config.model.use_lora
    assert config.generation.max_think_tokens == 48
    assert trainer.lr_schedule_config.arguments[0] == trainer.learning_rate == 3e-3
    weights = [reward.weight for reward in config.rewards]
    assert len(weights) >= 5
    assert weights[0] >= sum(weights[1:])
    RewardComposer(config.rewards)
    assert trainer.eval_every == 22
    assert config.checkpointing.best_metric == "eval/exact_match/accuracy"
    plain = load_text(render_template("standard"), tmp_path / "s.yaml").config
    assert (plain.model, plain.rewards) == (ExperimentConfig().model, ExperimentConfig().rewards)


@given(num_layers=st.integers(1, 200))
def test_layers_are_chosen_inside_the_model(num_layers):
    trainer = TrainerConfig(use_dual_gradients=True, **{k[8:]: v for k, v in layer_settings(num_layers).items()})
    ranges = layer_ranges(trainer, num_layers)
    assert ranges.warnings == ()
    assert len(ranges.thinking) >= 1
    assert ranges.answer.stop == num_layers


def test_what_was_given_wins_over_what_is_switched_on(tmp_path):
    given = ["model.use_lora=false", "trainer.use_sft_on_answer=false", "trainer.thinking_layer_start=1"]
    base = resolve([], [*given, "data.train_path=rows.jsonl"], {}).config
    config = load_text(render_template("advanced", base=base, num_layers=3), tmp_path / "c.yaml").config
    assert not config.model.use_lora
    assert not config.trainer.use_sft_on_answer
    assert (config.trainer.thinking_layer_start, config.trainer.thinking_layer_end) == (1, 1)
    assert config.trainer.learning_rate == 3e-4
    assert config.data.val_fraction == 0.05


@pytest.mark.parametrize(
    "assignment",
    ["trainer.algorithm=sft", "trainer.algorithm=ppo", "data.max_gen_len=1", "trainer.num_training_steps=1"],
)
def test_advanced_goes_with_other_choices(tmp_path, assignment):
    base = resolve([], [assignment], {}).config
    loaded = load_text(render_template("advanced", base=base, num_layers=1), tmp_path / "c.yaml")
    assert not [warning for warning in loaded.warnings if "no effect" in warning]
    RewardComposer(loaded.config.rewards)


def test_an_own_model_and_data_set(tmp_path):
    config = load_text(render_template("minimal", model_path="./m", data_path="d.jsonl"), tmp_path / "c.yaml").config
    assert (config.model.model_path, config.data.train_path, config.data.loader_type) == ("./m", "d.jsonl", "jsonl")
    assert config.trainer.learning_rate == 1e-5
    assert config.data.max_gen_len == 256


@templates
def test_what_was_set_is_shown_and_kept(name, tmp_path):
    assignments = ["trainer.learning_rate=2e-6", "generation.stop=[x]", "trainer.loss.delta=3", "rewards=[{name: q}]"]
    base = resolve([], assignments, {}).config
    config = load_text(render_template(name, model_path="./m", base=base), tmp_path / "c.yaml").config
    assert config.trainer.learning_rate == 2e-6
    assert config.generation.stop == ("x",)
    assert config.trainer.loss.delta == 3
    assert config.rewards == base.rewards


def test_the_loader_follows_the_data_path():
    text = render_template("minimal", data_path="train_prompts.npy")
    assert parse(text, str).value["data"]["loader_type"] == "npy"


def test_what_cannot_be_written_is_refused():
    with pytest.raises(ConfigError, match="no template is called 'huge'") as caught:
        render_template("huge")
    assert "minimal, standard, advanced" in caught.value.hint
    with pytest.raises(ConfigError, match=r"data\.loader_type and data\.train_path: the jsonl loader cannot read"):
        render_template("minimal", data_path="rows.csv")


paths = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20).filter(
    lambda path: not path.startswith("~")  # a home directory, which has to be that of somebody known
)


@settings(deadline=None, max_examples=60)
@given(model_path=paths, data_path=paths)
def test_any_path_survives(model_path, data_path):
    values = parse(render_template("minimal", model_path=model_path, data_path=f"{data_path}.jsonl"), str).value
    assert values["model"]["model_path"] == model_path
    assert values["data"]["train_path"] == f"{data_path}.jsonl"


def test_every_key_and_section_has_a_docstring():
    for key in walk(ExperimentConfig):
        assert key.sentence, key.path
        assert "`" not in key.sentence
        assert key.nested is None or key.nested.__doc__


def test_the_reference_page_is_up_to_date():
    page = (DOCS / "configuration.md").read_text(encoding="utf-8")
    assert page == reference(), "run: python -m pipelines.config.reference > docs/configuration.md"


def test_the_reference_names_every_key():
    page = reference()
    assert all(f"| `{key.path[-1]}` |" in page for key in walk(ExperimentConfig))


def test_importing_and_loading_stays_light():
    heavy = ["numpy", "mlx", "mlx_lm", "datasets", "sklearn", "transformers", "typer", "rich"]
    code = (
        "import sys\nfrom pipelines.config import ExperimentConfig\n"
        "assert 'pydantic_settings' not in sys.modules\n"
        "from pipelines.config.loader import resolve\nresolve([], [], {})\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_model_of_ones_own_is_asked_to_think():
    text = render_template("advanced", model_path="./m", base=resolve([], ["generation.think_end_tag=</t>"], {}).config)
    assert parse(text, str).value["data"]["system_prompt"] == "Think between <think> and </t>, then write the answer."
    assert parse(render_template("advanced"), str).value["data"]["system_prompt"] is None
