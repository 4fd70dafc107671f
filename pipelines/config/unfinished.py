"""The one list of settings that are valid and do not work yet: nothing is ignored silently.

To finish a setting, delete its line.
"""

from dataclasses import dataclass
from typing import Any

from pipelines.config.experiment import ExperimentConfig
from pipelines.config.yaml_writer import as_yaml
from pipelines.errors import ConfigError


@dataclass(frozen=True)
class Unfinished:
    """A key with the only values that work, or else those that do not; `commands` are the ones that read it."""

    key: str
    works: tuple[object, ...] = ()
    refused: tuple[object, ...] = ()
    commands: tuple[str, ...] = ()

    def refuses(self, value: object) -> bool:
        """Whether a value has to wait."""
        return value in self.refused or (bool(self.works) and value not in self.works)


TRAIN = ("train",)

UNFINISHED = (
    Unfinished("trainer.algorithm", refused=("ppo",), commands=TRAIN),
    Unfinished("trainer.num_iterations", works=(1,), commands=TRAIN),
    Unfinished("trainer.grad_checkpoint", works=(False,), commands=TRAIN),
    Unfinished("trainer.advantage.refill", works=(0,), commands=TRAIN),
    Unfinished("trainer.use_dual_gradients", works=(False,), commands=TRAIN),
    Unfinished("trainer.use_sft_on_answer", works=(False,), commands=TRAIN),
    Unfinished("trainer.eval_every", works=(0,), commands=TRAIN),
    Unfinished("model.quantize_bits", works=(None,)),
    Unfinished("generation.bias_close_think", works=(0,)),
    Unfinished("generation.bias_answer_start", works=(0,)),
    Unfinished("generation.punish_extra_think_end", works=(0,)),
    Unfinished("generation.punish_reopen_think", works=(0,)),
    Unfinished("generation.think_end_early_bias", works=(0,)),
    Unfinished("generation.max_think_tokens", works=(None,)),
    Unfinished("generation.stop", works=((),)),
    Unfinished("generation.repetition_penalty", works=(None,)),
    Unfinished("data.loader_type", refused=("npy", "hf")),
    Unfinished("data.hf_name", works=(None,)),
    Unfinished("data.synthetic.task", works=("arithmetic",)),
    Unfinished("monitoring.use_wandb", works=(False,), commands=TRAIN),
    Unfinished("monitoring.use_tensorboard", works=(False,), commands=TRAIN),
)


def refuse_unfinished(config: ExperimentConfig, command: str = "") -> None:
    """Raise ConfigError if a setting that `command` reads does not work yet; without a command, any setting counts."""
    waiting = [
        (row, value)
        for row in UNFINISHED
        if not command or not row.commands or command in row.commands
        if row.refuses(value := _value(config, row.key))
    ]
    if waiting:
        raise ConfigError(
            "not working yet: " + ", ".join(f"{row.key} = {as_yaml(value)}" for row, value in waiting),
            hint="use " + ", ".join(_instead(row) for row, _ in waiting),
        )


def _instead(row: Unfinished) -> str:
    if row.works:
        return f"{row.key}={' or '.join(map(as_yaml, row.works))}"
    return f"another {row.key} than {' or '.join(map(as_yaml, row.refused))}"


def _value(config: ExperimentConfig, key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part)
    return value
