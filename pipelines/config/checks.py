"""What one section cannot know alone: settings that contradict each other."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.config.data import DataConfig
from pipelines.config.generation import GenerationConfig
from pipelines.config.model import ModelConfig
from pipelines.config.reward import RewardConfig
from pipelines.config.schedule import LrScheduleConfig
from pipelines.config.trainer import TrainerConfig

LEARN_ALONE = ("sft", "ppo")
"""Algorithms that compare no completion with another."""

MOST_COMPLETIONS = 131_072
"""Of one update, all of which are in memory as token ids."""

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
        *_loss_conflicts(trainer),
        *_evaluation_conflicts(trainer),
        *_layer_conflicts(trainer),
        *_model_conflicts(trainer, model),
        *_home_conflicts(trainer, model, data),
        *_generation_conflicts(generation, data),
        *_data_conflicts(data, plugins=plugins),
        *_reward_conflicts(trainer, rewards),
    ]


def _schedule_conflicts(trainer: TrainerConfig) -> Iterator[Conflict]:
    schedule = trainer.lr_schedule_config
    if schedule is None:
        return
    steps = trainer.num_training_steps * trainer.num_iterations
    if schedule.warmup > steps:
        iterations = ("trainer.num_iterations",) if trainer.num_iterations > 1 else ()
        yield Conflict(
            (f"{SCHEDULE}.warmup", "trainer.num_training_steps", *iterations),
            f"a warm-up of {schedule.warmup} optimizer steps is longer than the run of {steps}",
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
    compared = trainer.algorithm not in LEARN_ALONE
    if trainer.completions_per_update > MOST_COMPLETIONS:
        yield Conflict(
            ("trainer.ppo_batch_size", "trainer.grad_accum_steps", "trainer.num_rollout_samples"),
            f"their product, {trainer.completions_per_update:,} completions per update, is beyond {MOST_COMPLETIONS:,}",
            "lower one of them",
        )
    if compared and trainer.completions_per_update == 1:
        yield Conflict(
            ("trainer.num_rollout_samples", "trainer.ppo_batch_size", "trainer.grad_accum_steps"),
            "one completion per update has nothing to be compared with, so its advantage is always 0",
            "set trainer.num_rollout_samples to 4 or more completions per prompt",
        )
    if compared and trainer.advantage.baseline in ("group", "leave_one_out") and trainer.num_rollout_samples == 1:
        yield Conflict(
            ("trainer.advantage.baseline", "trainer.num_rollout_samples"),
            f"the baseline {trainer.advantage.baseline} needs two or more completions per prompt",
            "raise trainer.num_rollout_samples, or set trainer.advantage.baseline to batch",
        )
    if trainer.algorithm == "sft" and trainer.use_sft_on_answer:
        yield Conflict(
            ("trainer.algorithm", "trainer.use_sft_on_answer"),
            "sft learns from the references already",
            "set trainer.use_sft_on_answer to false, or trainer.algorithm to grpo",
        )
    if trainer.algorithm == "ppo" and trainer.loss.sequence_level:
        key = "trainer.loss.type" if trainer.loss.type == "gspo" else "trainer.loss.level"
        yield Conflict(
            ("trainer.algorithm", key),
            "ppo has an advantage for each token, and a ratio per completion cannot tell them apart",
            "set trainer.loss.type to dapo and trainer.loss.level to token",
        )


def _loss_conflicts(trainer: TrainerConfig) -> Iterator[Conflict]:
    advantage, loss = trainer.advantage, trainer.loss
    if advantage.refill and not advantage.drop_zero_variance_groups:
        yield Conflict(
            ("trainer.advantage.refill", "trainer.advantage.drop_zero_variance_groups"),
            "only what was dropped is replaced by fresh prompts, and nothing is",
            "set trainer.advantage.drop_zero_variance_groups to true, or trainer.advantage.refill to 0",
        )
    if loss.sampler_correction in ("token_mask", "sequence_mask") and loss.sampler_correction_cap <= 1:
        yield Conflict(
            ("trainer.loss.sampler_correction", "trainer.loss.sampler_correction_cap"),
            f"a mask above {loss.sampler_correction_cap:g} leaves out the tokens that sampler and trainer agree on",
            "set trainer.loss.sampler_correction_cap to 3.0 or so, or correct by token_truncate",
        )


def _evaluation_conflicts(trainer: TrainerConfig) -> Iterator[Conflict]:
    if trainer.early_stop_after and not trainer.eval_every:
        yield Conflict(
            ("trainer.early_stop_after", "trainer.eval_every"),
            "without evaluations nothing can tell when to stop",
            "set trainer.eval_every, such as 10, or trainer.early_stop_after to 0",
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


def _model_conflicts(trainer: TrainerConfig, model: ModelConfig) -> Iterator[Conflict]:
    if model.quantize_bits is not None and not model.use_lora:
        yield Conflict(
            ("model.quantize_bits", "model.use_lora"),
            "quantised weights cannot be fine-tuned in full",
            "set model.use_lora to true, or model.quantize_bits to null",
        )
    if trainer.grad_checkpoint and model.use_lora and model.lora_dropout:
        yield Conflict(
            ("trainer.grad_checkpoint", "model.lora_dropout"),
            "layers that are computed again would drop other inputs than the first time",
            "set model.lora_dropout to 0, or trainer.grad_checkpoint to false",
        )
    if model.use_lora and model.lora_layers == 0:
        yield Conflict(
            ("model.lora_layers", "model.use_lora"), "LoRA on 0 layers trains nothing", "-1 adapts all layers"
        )


def _home_conflicts(trainer: TrainerConfig, model: ModelConfig, data: DataConfig) -> Iterator[Conflict]:
    paths = {
        "model.model_path": model.model_path,
        "model.ref_model_path": model.ref_model_path,
        "data.train_path": data.train_path,
        "data.val_path": data.val_path,
        "trainer.output_dir": trainer.output_dir,
    }
    for key, path in paths.items():
        if path is not None and not _has_home(path):
            home = path.partition("/")[0]
            yield Conflict((key,), f"nobody knows the home directory {home}", "write the path out")


def _has_home(path: str) -> bool:
    try:
        Path(path).expanduser()
    except RuntimeError:
        return False
    return True


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
    train_path = None if data.loader_type == "hf" and data.hf_name else data.train_path
    for key, path in (("data.train_path", train_path), ("data.val_path", data.val_path)):
        if path is not None and _unreadable(data.loader_type, path):
            yield Conflict(
                ("data.loader_type", key),
                f"the {data.loader_type} loader cannot read {path}",
                "set data.loader_type to the kind of file you have: jsonl, npy or hf",
            )
    asked = {"val_path": data.val_path, "val_fraction": data.val_fraction, "hf_val_split": data.hf_val_split}
    given = tuple(f"data.{key}" for key, value in asked.items() if value)
    if len(given) > 1:
        yield Conflict(
            given,
            "validation rows come from one place: a file, a part of the training rows, or a split of their data set",
            "set data.val_fraction to 0, the others to null",
        )
    yield from _hub_conflicts(data)
    yield from _column_conflicts(data)


def _hub_conflicts(data: DataConfig) -> Iterator[Conflict]:
    given = [f"data.{key}" for key in ("hf_name", "hf_val_split") if getattr(data, key) is not None]
    if given and data.loader_type != "hf":
        yield Conflict(
            ("data.loader_type", *given),
            f"the {data.loader_type} loader does not read them",
            "set data.loader_type to hf",
        )
    if data.hf_name is not None and data.hf_revision is None:
        yield Conflict(
            ("data.hf_name", "data.hf_revision"),
            "without a commit nobody can tell whether the rows have changed since they were tokenised",
            "the commits of a data set are on its page, under Files: name one in full",
        )


def _column_conflicts(data: DataConfig) -> Iterator[Conflict]:
    fields = (data.prompt_key, data.completion_key, "system", "test_cases", "meta")
    names: dict[str, str] = {}
    for column, target in data.columns.items():
        key = f"data.columns.{column}"
        if target not in fields and not (target.startswith("meta.") and target.removeprefix("meta.")):
            yield Conflict((key,), f"{target!r} is no field of a row", f"fields are {', '.join(fields)} and meta.NAME")
        elif target in names:
            keys = (f"data.columns.{names[target]}", key)
            yield Conflict(keys, f"both become {target}", "leave one of them out")
        names[target] = column


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
