"""Configuration files to start from, written from the schema: the key, its value, and what its docstring says first."""

from collections.abc import Iterator, Sequence
from typing import Any, cast

from pydantic import ValidationError

from pipelines.config.experiment import ExperimentConfig
from pipelines.config.fields import Key, dotted, keys_of, walk
from pipelines.config.problems import config_error
from pipelines.config.schedule import LrScheduleConfig
from pipelines.config.section import Section
from pipelines.config.yaml_writer import as_yaml
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
    "trainer": {"learning_rate": 1e-5, "ppo_batch_size": 8, "num_rollout_samples": 8},
    "data": {"max_prompt_len": 256, "max_gen_len": 256},
}
"""What suits a model that was not made for the built-in task, where nothing else is asked for."""

LOADERS = {".npy": "npy", ".parquet": "hf", ".arrow": "hf"}
WARMUP = 10
"""Updates of the warm-up that templates show; without one the first steps of Adam can be too long."""
FINAL = 0.1
"""Fraction of the learning rate at the end of the schedule that templates show: small last steps settle the policy."""

HEADER = """\
# A configuration of grpo ({name} template). What is left out keeps its default: see docs/configuration.md.
# Any value can also be set on the command line, --set trainer.seed=1, or as GRPO_TRAINER__SEED=1.
"""


def render_template(
    name: str,
    *,
    model_path: str | None = None,
    data_path: str | None = None,
    base: ExperimentConfig | None = None,
) -> str:
    """The text of a template: its keys, and any others that `base` sets to something other than the default.

    Raises ConfigError for an unknown name, or paths that contradict `base`.
    """
    if name not in TEMPLATES:
        raise ConfigError(f"no template is called {name!r}", hint=f"there are {', '.join(TEMPLATES)}")
    config = _with_paths(base or ExperimentConfig(), model_path, data_path)
    changed = [dotted(key.path) for key in walk(ExperimentConfig) if _changed(config, key)]
    shown = [tuple(key.split(".")) for key in (*TEMPLATES[name], *changed)]
    config = _with_schedule(config)
    return HEADER.format(name=name) + "\n".join(_section_lines(config, (), shown)) + "\n"


def _section_lines(section: Section, path: tuple[str, ...], shown: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """The lines of a section's shown keys, each with its comment; sections of the root stand apart."""
    indent = "  " * len(path)
    for name, key in keys_of(type(section), path).items():
        if not any(_above(chosen, key.path) or _above(key.path, chosen) for chosen in shown):
            continue
        value = getattr(section, name)
        below = _below(value, key, shown)
        if not path:
            yield ""
        yield f"{indent}{name}:{'' if below else ' ' + as_yaml(value)}  # {key.sentence}"
        yield from below


def _below(value: Any, key: Key, shown: Sequence[tuple[str, ...]]) -> list[str]:
    if isinstance(value, Section):
        return list(_section_lines(value, key.path, shown))
    lines: list[str] = []
    for item in cast("Sequence[Section]", value) if key.many else ():
        first, *others = _section_lines(item, key.path, [key.path])
        lines += [f"  - {first.lstrip()}", *(f"  {line}" for line in others)]
    return lines


def _above(path: tuple[str, ...], other: tuple[str, ...]) -> bool:
    return other[: len(path)] == path


def _changed(config: ExperimentConfig, key: Key) -> bool:
    """Whether a value, not a section, was set to something else than its default."""
    here: Any = config
    usual: Any = ExperimentConfig()
    for part in key.path:
        if not isinstance(here, Section):
            return False  # inside a list, whose own key stands for it
        here, usual = getattr(here, part), getattr(usual, part, None)
    return here != usual and not (isinstance(here, Section) and isinstance(usual, Section))


def _with_paths(base: ExperimentConfig, model_path: str | None, data_path: str | None) -> ExperimentConfig:
    values = base.model_dump()
    if model_path is not None:
        values["model"]["model_path"] = model_path
        if not model_path.startswith("builtin:"):
            for section, settings in OWN_MODEL.items():
                untouched = {key: value for key, value in settings.items() if _is_default(base, section, key)}
                values[section].update(untouched)
    if data_path is not None:
        values["data"]["train_path"] = data_path
        loader = next((LOADERS[suffix] for suffix in LOADERS if data_path.endswith(suffix)), None)
        values["data"]["loader_type"] = loader or base.data.loader_type
    try:
        return ExperimentConfig.model_validate(values)
    except ValidationError as error:
        raise config_error(error, {}) from error


def _is_default(config: ExperimentConfig, section: str, key: str) -> bool:
    return getattr(getattr(config, section), key) == getattr(getattr(ExperimentConfig(), section), key)


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
