"""TRL's GRPO step on PyTorch, through `GRPOTrainer` with the generation it comes with. Started by `benchmarks/step.py`.

Not to be made equal: PyTorch brings a BLAS of its own, so another one is not put before it. Where all weights are
trained in bfloat16 we keep a float32 copy and TRL none, which saves it memory; adapters are float32 on both sides.
Gradient checkpointing, which TRL turns on, is off as it is on the other sides.

All completions of a step are generated at once; `trl_rows` of them are in each backward pass, and the passes of a step
accumulate. On a GPU everything else is as it comes: PyTorch's fused attention and AdamW, bfloat16 under autocast.
"""

import os
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

from measure import LEARNING_RATE, LORA_SCALE, Meter, Task, hand_back, reward, take


def settings(task: Task, *, gpu: bool) -> dict[str, Any]:
    """What its `GRPOConfig` says of the task; its `steps_per_generation` follows the accumulation steps."""
    completions = task.prompts * task.group
    rows = task.trl_rows or completions
    return {
        "output_dir": task.folder,
        "use_cpu": not gpu,
        "bf16": task.dtype == "bfloat16",
        "model_init_kwargs": {"dtype": task.dtype},
        "per_device_train_batch_size": rows,
        "gradient_accumulation_steps": completions // rows,
        "num_generations": task.group,
        "max_completion_length": task.tokens,
        "max_steps": task.steps,
        "learning_rate": LEARNING_RATE,
        "lr_scheduler_type": "constant",
        "beta": 0.0,
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": 0,
        "gradient_checkpointing": False,
        "seed": task.seed,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": gpu,
    }


def main() -> None:
    """Train for the steps of the task."""
    task = take()
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    meter = Meter()

    class Steps(TrainerCallback):
        """Begins and ends the clock's steps."""

        def on_step_begin(self, *_, **__):
            meter.begin()

        def on_step_end(self, *_, **__):
            meter.end()

    def repetition(completions, completion_ids, **_):
        scores = [reward(messages[0]["content"]) for messages in completions]
        meter.rolled(sum(map(len, completion_ids)))
        return scores

    rows = [{"prompt": [{"role": "user", "content": question}]} for question in task.questions]
    adapters = LoraConfig(
        r=task.rank, lora_alpha=LORA_SCALE * task.rank, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    trainer = GRPOTrainer(
        model=task.model,
        reward_funcs=[repetition],
        args=GRPOConfig(**settings(task, gpu=torch.cuda.is_available())),
        train_dataset=Dataset.from_list(rows),
        peft_config=None if task.full else adapters,
        callbacks=[Steps()],
    )
    trainer.train()
    prompts = [
        trainer.processing_class.apply_chat_template(row["prompt"], add_generation_prompt=True)["input_ids"]
        for row in rows
    ]
    hand_back("trl", meter, list(map(len, prompts)))


if __name__ == "__main__":
    main()
