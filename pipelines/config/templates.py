"""Configuration files to start from, written from the schema: the key, its value, and what its docstring says first."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from pipelines.config.advanced import advanced_headings, advanced_settings
from pipelines.config.experiment import ExperimentConfig
from pipelines.config.fields import Key, Path, find, walk
from pipelines.config.problems import config_error, path_of
from pipelines.config.schedule import LrScheduleConfig
from pipelines.config.section import Section
from pipelines.config.values import part
from pipelines.config.yaml_writer import document_lines, nothing
from pipelines.errors import ConfigError

MINIMAL = (
    *("trainer.output_dir", "trainer.num_training_steps", "trainer.lr_schedule_config.name"),
    *("trainer.lr_schedule_config.arguments", "trainer.lr_schedule_config.warmup", "trainer.ppo_batch_size"),
    *("trainer.num_rollout_samples", "trainer.seed", "model.model_path", "data.train_path", "data.max_prompt_len"),
    *("data.max_gen_len", "rewards"),
)
STANDARD = (
    *MINIMAL,
    *("trainer.algorithm", "trainer.optimizer_beta1", "trainer.optimizer_beta2", "trainer.optimizer_weight_decay"),
    *("trainer.learning_rate", "trainer.lr_schedule_config", "trainer.grad_accum_steps", "trainer.grad_clip_norm"),
    "trainer.grpo_beta",
    *("trainer.loss.type", "trainer.loss.epsilon", "trainer.loss.epsilon_high", "trainer.advantage.baseline"),
    *("trainer.advantage.scale", "model.ref_model_path", "model.use_lora", "model.lora_rank", "model.lora_alpha"),
    *("generation.temperature", "generation.top_p", "generation.think_start_tag", "generation.think_end_tag"),
    *("data.val_path", "data.loader_type", "data.prompt_key", "data.completion_key", "data.system_prompt"),
    *("data.shuffle_data", "evaluation", "monitoring.log_every", "monitoring.log_samples_every"),
    *("monitoring.log_prompts", "monitoring.use_wandb", "checkpointing.checkpoint_dir", "checkpointing.save_every"),
    *("checkpointing.keep_last_n", "checkpointing.save_optimizer_state"),
)
ADVANCED = tuple(ExperimentConfig.model_fields)
TEMPLATES = {"minimal": MINIMAL, "standard": STANDARD, "advanced": ADVANCED}
"""Keys that each template shows; a key stands for everything below it."""

OWN_MODEL = {
    "trainer.learning_rate": 1e-5,
    "trainer.ppo_batch_size": 8,
    "trainer.num_rollout_samples": 8,
    "data.max_prompt_len": 256,
    "data.max_gen_len": 256,
}
"""What suits a model that was not made for the built-in task, where nothing else is asked for."""

LOADERS = {".npy": "npy", ".parquet": "hf", ".arrow": "hf"}
WARMUP = 10
"""Updates of the warm-up that templates show; without one the first steps of Adam can be too long."""
FINAL = 0.1
"""Fraction of the learning rate at the end of the schedule that templates show: small last steps settle the policy."""

HEADER = """\
# The {name} template of grpo: {content}.
# What is left out keeps its default (docs/configuration.md); --set trainer.seed=1 and GRPO_TRAINER__SEED=1 win.
"""
CONTENT = {
    "minimal": "what every run chooses for itself",
    "standard": "the usual settings, for GRPO on all weights",
    "advanced": "every setting; dual gradients, SFT, LoRA, several rewards and evaluations are on",
}


def render_template(
    name: str,
    *,
    model_path: str | None = None,
    data_path: str | None = None,
    base: ExperimentConfig | None = None,
    num_layers: int | None = None,
) -> str:
    """The text of a template: its keys, and any others that `base` sets to something other than the default.

    What `base` gives wins over what a template would switch on. `num_layers` is the depth of the model, where known.
    Raises ConfigError for an unknown name, or paths that contradict `base`.
    """
    if name not in TEMPLATES:
        raise ConfigError(f"no template is called {name!r}", hint=f"there are {', '.join(TEMPLATES)}")
    given = base or ExperimentConfig()
    config = _with_paths(given, model_path, data_path)
    if name == "advanced":
        config = _switched_on(config, given, num_layers)
    changed = [key.path for key in walk(ExperimentConfig) if _changed(config, key)]
    shown = [*(path_of(key) for key in TEMPLATES[name]), *changed]
    values = part(_with_schedule(config).model_dump(mode="json"), shown)
    heading = advanced_headings(config, num_layers) if name == "advanced" else nothing
    lines = document_lines(values, ExperimentConfig, _meaning, heading)
    return HEADER.format(name=name, content=CONTENT[name]) + "\n".join(lines) + "\n"


def _meaning(path: Path) -> str:
    key = find(ExperimentConfig, path)
    return key.sentence if key else ""


def _changed(config: ExperimentConfig, key: Key) -> bool:
    """Whether a value, not a section, was set to something else than its default."""
    here: Any = config
    usual: Any = ExperimentConfig()
    for name in key.path:
        if not isinstance(here, Section):
            return False  # inside a list, whose own key stands for it
        here, usual = getattr(here, name), getattr(usual, name, None)
    return here != usual and not (isinstance(here, Section) and isinstance(usual, Section))


def _with_paths(base: ExperimentConfig, model_path: str | None, data_path: str | None) -> ExperimentConfig:
    settings: dict[str, Any] = {}
    if model_path is not None:
        own = {} if model_path.startswith("builtin:") else _not_given(OWN_MODEL, base)
        settings |= {"model.model_path": model_path, **own}
    if data_path is not None:
        loader = next((LOADERS[suffix] for suffix in LOADERS if data_path.endswith(suffix)), base.data.loader_type)
        settings |= {"data.train_path": data_path, "data.loader_type": loader}
    return _with(base, settings)


def _switched_on(config: ExperimentConfig, given: ExperimentConfig, num_layers: int | None) -> ExperimentConfig:
    """With what the advanced template switches on, but for what was given."""
    adapters = config.model.use_lora or not _is_given(given, ("model", "use_lora"))
    return _with(config, _not_given(advanced_settings(config, num_layers, adapters=adapters), given))


def _not_given(settings: Mapping[str, Any], given: ExperimentConfig) -> dict[str, Any]:
    """The settings whose keys nobody wrote down."""
    return {key: value for key, value in settings.items() if not _is_given(given, path_of(key))}


def _is_given(config: Section, path: Path) -> bool:
    name, *below = path
    inner = getattr(config, str(name))
    return name in config.model_fields_set and (not below or _is_given(inner, tuple(below)))


def _with(config: ExperimentConfig, settings: Mapping[str, Any]) -> ExperimentConfig:
    """The configuration with some values set by dotted key, checked as a whole."""
    values = config.model_dump(exclude_unset=True)
    for key, value in settings.items():
        *sections, name = key.split(".")
        holder = values
        for section in sections:
            holder = holder.setdefault(section, {})
        holder[name] = value
    try:
        return ExperimentConfig.model_validate(values)
    except ValidationError as error:
        raise config_error(error, {}) from error


def _with_schedule(config: ExperimentConfig) -> ExperimentConfig:
    """A schedule where none is set: a short warm-up, then linearly down to a tenth."""
    trainer = config.trainer
    if trainer.lr_schedule_config is not None:
        return config
    warmup = min(WARMUP, trainer.num_training_steps // 5)
    steps = max(1, trainer.num_training_steps - warmup)
    arguments = (trainer.learning_rate, float(f"{FINAL * trainer.learning_rate:.6g}"), steps)
    schedule = LrScheduleConfig(name="linear_schedule", arguments=arguments, warmup=warmup)
    return config.model_copy(update={"trainer": trainer.model_copy(update={"lr_schedule_config": schedule})})
