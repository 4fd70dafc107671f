"""TRL on the rows of `benchmarks/learning.py`, which starts it: `GRPOTrainer`. Saves the model that comes out of it."""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"


def right(completion: str, reference: str) -> float:
    """Whether what follows the thinking is the reference's answer, to the letter."""
    (said, answer) = (text.rpartition("</think>")[2].strip() for text in (completion, reference))
    return float("</think>" in completion and said == answer)


def settings(task: dict[str, Any]) -> dict[str, Any]:
    """What its `GRPOConfig` says of the task; what is not said is alike by default, such as clipping and scaling."""
    return {
        "output_dir": task["folder"],
        "use_cpu": True,
        "bf16": False,
        "model_init_kwargs": {"dtype": "float32"},
        "per_device_train_batch_size": task["prompts"] * task["group"],
        "num_generations": task["group"],
        "max_completion_length": task["tokens"],
        "max_steps": task["updates"],
        "learning_rate": task["learning_rate"],
        "adam_beta2": task["beta2"],
        "lr_scheduler_type": "constant",
        "loss_type": task["loss"],
        "epsilon_high": task["epsilon_high"],
        "beta": 0.0,
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": 0,
        "gradient_checkpointing": False,
        "seed": task["seed"],
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }


def main() -> None:
    """Train, save, and hand back the mean reward of each update with the seconds it took."""
    task = json.loads(sys.argv[1])
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer, __version__

    def rewards(completions: list[Any], reference: list[str], **_: object) -> list[float]:
        said = [messages[0]["content"] for messages in completions]
        return [right(text, wanted) for text, wanted in zip(said, reference, strict=True)]

    lines = map(json.loads, Path(task["rows"]).read_text(encoding="utf-8").splitlines())
    rows = [{"prompt": [{"role": "user", "content": row["prompt"]}], "reference": row["completion"]} for row in lines]
    trainer = GRPOTrainer(
        model=task["model"],
        reward_funcs=[rewards],
        args=GRPOConfig(**settings(task)),
        train_dataset=Dataset.from_list(rows),
    )
    started = time.process_time()
    trainer.train()
    seconds = time.process_time() - started
    trainer.save_model(task["saved"])
    curve = [entry["reward"] for entry in trainer.state.log_history if "reward" in entry]
    Path(sys.argv[2]).write_text(json.dumps({"version": __version__, "rewards": curve, "seconds": seconds}))


if __name__ == "__main__":
    main()
