"""What one section cannot know alone: settings that contradict each other, and settings that merely look odd."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipelines.config.data import DataConfig
from pipelines.config.generation import GenerationConfig
from pipelines.config.model import ModelConfig
from pipelines.config.reward import RewardConfig
from pipelines.config.schedule import LrScheduleConfig
from pipelines.config.trainer import TrainerConfig

LOADERS = ("jsonl", "npy", "hf", "synthetic")
SCHEDULE = "trainer.lr_schedule_config"
ARGUMENTS: dict[str, tuple[int, int, int | None]] = {
    "constant": (1, 1, None),
    "cosine_decay": (2, 3, 1),
    "linear_schedule": (3, 3, 2),
    "exponential_decay": (2, 2, None),
    "step_decay": (3, 3, 2),
}
"""Fewest and most arguments of each schedule, and the position of the one that counts steps."""

FOREIGN_SUFFIXES = {
    "npy": (".jsonl", ".jsonl.gz", ".json", ".parquet", ".arrow", ".csv"),
    "jsonl": (".npy", ".npz", ".parquet", ".arrow", ".csv", ".yaml"),
    "hf": (".npy", ".npz", ".yaml"),
}
"""Endings that a loader certainly cannot read."""


@dataclass(frozen=True)
class Conflict:
    """Settings that exclude each other: the dotted keys, the sentence that says why, and a way out."""

    keys: tuple[str, ...]
    message: str
    hint: str

    def __str__(self) -> str:
        return f"{' and '.join(self.keys)}: {self.message}"


def conflicts(
    trainer: TrainerConfig,
    model: ModelConfig,
    generation: GenerationConfig,
    data: DataConfig,
    rewards: Sequence[RewardConfig],
    *,
    plugins: bool = False,
) -> list[Conflict]:
    """Everything that rules the run out whatever the model is. Plugins may bring loaders of their own."""
    return [
        *_schedule_conflicts(trainer),
        *_batch_conflicts(trainer),
        *_layer_conflicts(trainer),
        *_model_conflicts(model),
        *_generation_conflicts(generation, data),
        *_data_conflicts(data, plugins=plugins),
        *_reward_conflicts(trainer, rewards),
    ]


def warnings(
    trainer: TrainerConfig,
    model: ModelConfig,
    generation: GenerationConfig,
    data: DataConfig,
) -> list[str]:
    """Settings that are allowed and probably not meant, one sentence each."""
    return [*_trainer_warnings(trainer), *_reference_warnings(trainer, model), *_tag_warnings(generation, data)]


def _schedule_conflicts(trainer: TrainerConfig) -> Iterator[Conflict]:
    schedule = trainer.lr_schedule_config
    if schedule is None:
        return
    if schedule.warmup > trainer.num_training_steps:
        yield Conflict(
            (f"{SCHEDULE}.warmup", "trainer.num_training_steps"),
            f"a warm-up of {schedule.warmup} steps is longer than the run of {trainer.num_training_steps}",
            "shorten the warm-up; a tenth of the run is usual",
        )
    yield from _argument_conflicts(schedule)


def _argument_conflicts(schedule: LrScheduleConfig) -> Iterator[Conflict]:
    fewest, most, steps = ARGUMENTS[schedule.name]
    arguments = schedule.arguments
    keys = (f"{SCHEDULE}.name", f"{SCHEDULE}.arguments")
    if not fewest <= len(arguments) <= most:
        expected = f"{fewest}" if fewest == most else f"{fewest} or {most}"
        message = f"{schedule.name} takes {expected} arguments, not {len(arguments)}"
        yield Conflict(keys, message, SIGNATURES[schedule.name])
    elif steps is not None and not (isinstance(arguments[steps], int) and arguments[steps] >= 1):
        message = f"argument {steps + 1} of {schedule.name} counts steps and cannot be {arguments[steps]}"
        yield Conflict(keys, message, SIGNATURES[schedule.name])
    elif min(arguments) < 0:
        yield Conflict(keys, f"{schedule.name} cannot take the negative {min(arguments)}", SIGNATURES[schedule.name])


SIGNATURES = {
    "constant": "write constant as arguments: [learning_rate]",
    "cosine_decay": "write cosine_decay as arguments: [start, decay_steps] or [start, decay_steps, end]",
    "linear_schedule": "write linear_schedule as arguments: [start, end, steps]",
    "exponential_decay": "write exponential_decay as arguments: [start, factor_per_step]",
    "step_decay": "write step_decay as arguments: [start, factor, step_size]",
}


def _batch_conflicts(trainer: TrainerConfig) -> Iterator[Conflict]:
    if trainer.algorithm != "sft" and trainer.completions_per_update == 1:
        yield Conflict(
            ("trainer.num_rollout_samples", "trainer.ppo_batch_size", "trainer.grad_accum_steps"),
            "one completion per update has nothing to be compared with, so its advantage is always 0",
            "set trainer.num_rollout_samples to 4 or more completions per prompt",
        )
    if trainer.advantage.baseline in ("group", "leave_one_out") and trainer.num_rollout_samples == 1:
        yield Conflict(
            ("trainer.advantage.baseline", "trainer.num_rollout_samples"),
            f"the baseline {trainer.advantage.baseline} needs two or more completions per prompt",
            "raise trainer.num_rollout_samples, or set trainer.advantage.baseline to batch",
        )


def _layer_conflicts(trainer: TrainerConfig) -> Iterator[Conflict]:
    for region in ("thinking", "answer"):
        keys = (f"trainer.{region}_layer_start", f"trainer.{region}_layer_end")
        start: int | None = getattr(trainer, f"{region}_layer_start")
        end: int | None = getattr(trainer, f"{region}_layer_end")
        if start is not None and end is not None and start > end:
            yield Conflict(
                keys, f"the range starts at layer {start}, after its end {end}", "both ends are included, from 0"
            )


def _model_conflicts(model: ModelConfig) -> Iterator[Conflict]:
    if model.quantize_bits is not None and not model.use_lora:
        yield Conflict(
            ("model.quantize_bits", "model.use_lora"),
            "quantised weights cannot be fine-tuned in full",
            "set model.use_lora to true, or model.quantize_bits to null",
        )
    if model.use_lora and model.lora_layers == 0:
        yield Conflict(
            ("model.lora_layers", "model.use_lora"), "LoRA on 0 layers trains nothing", "-1 adapts all layers"
        )


def _generation_conflicts(generation: GenerationConfig, data: DataConfig) -> Iterator[Conflict]:
    if generation.min_think_tokens >= data.max_gen_len:
        yield Conflict(
            ("generation.min_think_tokens", "data.max_gen_len"),
            f"{generation.min_think_tokens} thinking tokens leave no room for an answer in {data.max_gen_len}",
            "raise data.max_gen_len well above generation.min_think_tokens",
        )
    most = generation.max_think_tokens
    if most is not None and most < generation.min_think_tokens:
        yield Conflict(
            ("generation.min_think_tokens", "generation.max_think_tokens"),
            f"at least {generation.min_think_tokens} and at most {most} thinking tokens exclude each other",
            "raise generation.max_think_tokens",
        )
    if generation.think_start_tag and generation.think_start_tag == generation.think_end_tag:
        yield Conflict(
            ("generation.think_start_tag", "generation.think_end_tag"),
            f"both tags are {generation.think_start_tag!r}, so opening and closing look the same",
            "use two different tags",
        )


def _data_conflicts(data: DataConfig, *, plugins: bool) -> Iterator[Conflict]:
    if data.loader_type not in LOADERS and not plugins:
        yield Conflict(
            ("data.loader_type", "plugins"),
            f"{data.loader_type!r} is not a built-in loader, and no plugin could register it",
            f"built in are {', '.join(LOADERS)}",
        )
    for key, path in (("data.train_path", data.train_path), ("data.val_path", data.val_path)):
        if path is not None and _unreadable(data.loader_type, path):
            yield Conflict(
                ("data.loader_type", key),
                f"the {data.loader_type} loader cannot read {path}",
                "set data.loader_type to the kind of file you have: jsonl, npy or hf",
            )
    if data.val_path is not None and data.val_fraction > 0:
        yield Conflict(
            ("data.val_path", "data.val_fraction"),
            "validation rows come from a file or from the training rows, not from both",
            "set data.val_fraction to 0, or data.val_path to null",
        )


def _unreadable(loader: str, path: str) -> bool:
    if path.startswith("builtin:"):
        return loader in ("npy", "hf")
    return path.lower().endswith(FOREIGN_SUFFIXES.get(loader, ("\0",)))


def _reward_conflicts(trainer: TrainerConfig, rewards: Sequence[RewardConfig]) -> Iterator[Conflict]:
    if trainer.algorithm == "sft":
        return
    if not rewards:
        message = f"{trainer.algorithm} learns from rewards, and the list is empty"
        yield Conflict(("rewards", "trainer.algorithm"), message, "add a reward such as {name: exact_match}")
    elif not any(reward.weight for reward in rewards):
        keys = tuple(f"rewards.{index}.weight" for index in range(len(rewards)))
        yield Conflict(keys, "all weights are 0, so every completion scores the same", "give one a weight above 0")


def _trainer_warnings(trainer: TrainerConfig) -> Iterator[str]:
    reinforcement = trainer.algorithm != "sft"
    if reinforcement and trainer.num_rollout_samples == 1 and trainer.advantage.baseline == "auto":
        yield (
            "trainer.num_rollout_samples is 1, so trainer.advantage.baseline auto compares completions of different"
            f" prompts (the {trainer.completions_per_update} of one update): a weak signal"
        )
    schedule = trainer.lr_schedule_config
    if schedule is not None and schedule.arguments[0] != trainer.learning_rate:
        yield (
            f"trainer.learning_rate is {trainer.learning_rate:g} but {SCHEDULE}.arguments start at"
            f" {schedule.arguments[0]:g}: the schedule decides"
        )
    if reinforcement and trainer.loss.type == "cispo" and trainer.loss.epsilon_high < 1:
        yield (
            f"trainer.loss.epsilon_high is {trainer.loss.epsilon_high:g}, which trainer.loss.type cispo takes as the"
            " absolute cap of the ratio, so every on-policy token is capped: 5.0 or so is usual"
        )
    ranges = ("thinking_layer_start", "thinking_layer_end", "answer_layer_start", "answer_layer_end")
    named = [f"trainer.{key}" for key in ranges if getattr(trainer, key) is not None]
    if named and not (trainer.use_dual_gradients or trainer.use_sft_on_answer):
        yield f"{', '.join(named)}: no effect without trainer.use_dual_gradients or trainer.use_sft_on_answer"


def _reference_warnings(trainer: TrainerConfig, model: ModelConfig) -> Iterator[str]:
    reference = model.ref_model_path
    if reference is None or reference == model.model_path:
        return
    if trainer.grpo_beta == 0:
        yield "model.ref_model_path is never loaded while trainer.grpo_beta is 0"
    elif model.use_lora:
        yield (
            "model.ref_model_path is not used with model.use_lora:"
            " the reference is model.model_path with the adapter off"
        )


def _tag_warnings(generation: GenerationConfig, data: DataConfig) -> Iterator[str]:
    if generation.bias_answer_start and not generation.answer_start_tag:
        yield (
            f"generation.bias_answer_start is {generation.bias_answer_start:g} but generation.answer_start_tag"
            " is empty, so it does nothing"
        )
    if generation.think_end_early_bias > 0 and generation.min_think_tokens:
        yield (
            f"generation.think_end_early_bias is {generation.think_end_early_bias:g}: a positive bias pushes"
            f" thinking to close before generation.min_think_tokens ({generation.min_think_tokens}) are reached"
        )
    if generation.max_think_tokens is not None and generation.max_think_tokens >= data.max_gen_len:
        yield (
            f"generation.max_think_tokens ({generation.max_think_tokens}) is never reached within data.max_gen_len"
            f" ({data.max_gen_len})"
        )
