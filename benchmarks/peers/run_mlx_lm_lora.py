"""mlx-lm-lora's GRPO step, through `train_grpo`. Started by `benchmarks/step.py`.

Not to be made equal: its `batch_size` is the prompts of a step, the rows that it decodes side by side and those of a
micro-batch, all in one; its sampler and its loss are compiled, for which a CPU calls a C++ compiler in the first step.
"""

from pathlib import Path
from typing import Any

from measure import LEARNING_RATE, LORA_SCALE, Meter, Task, hand_back, reward, take


def settings(task: Task) -> dict[str, Any]:
    """What its `GRPOTrainingArgs` says of the task."""
    return {
        "batch_size": task.prompts,
        "group_size": task.group,
        "iters": task.steps,
        "steps_per_report": 1,
        "adapter_file": str(Path(task.folder) / "adapters.safetensors"),
        "max_completion_length": task.tokens,
        "beta": 0.0,
        "epsilon": 0.2,
        "grpo_loss_type": "bnpo",
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": 0,
        "min_p": 0.0,
    }


def main() -> None:
    """Train for the steps of the task."""
    task = take()
    import mlx.core as mx
    from mlx import optimizers
    from mlx_lm import load
    from mlx_lm.tuner.utils import linear_to_lora_layers
    from mlx_lm_lora.trainer.grpo_trainer import GRPOTrainingArgs, iterate_grpo_batches, train_grpo

    mx.random.seed(task.seed)
    model, tokenizer = load(task.model)
    model.set_dtype(getattr(mx, task.dtype))
    model.freeze()
    linear_to_lora_layers(model, len(model.layers), {"rank": task.rank, "scale": LORA_SCALE, "dropout": 0.0})
    prompts = [
        tokenizer.apply_chat_template([{"role": "user", "content": question}], add_generation_prompt=True)
        for question in task.questions
    ]
    meter = Meter()

    def batches(**asked):
        for batch in iterate_grpo_batches(**asked):
            meter.begin()
            yield batch

    def repetition(completions, **_):
        scores = [reward(text) for text in completions]
        meter.rolled(0)  # how many it was is told after the update
        return scores

    class Ends:
        """A callback of its trainer."""

        def on_train_loss_report(self, report):
            meter.end()
            meter.steps[-1]["tokens"] = round(report["train_average_generated_tokens"] * task.prompts * task.group)

    train_grpo(
        model=model,
        ref_model=None,
        tokenizer=tokenizer,
        optimizer=optimizers.AdamW(learning_rate=LEARNING_RATE),
        train_dataset=[(prompt, [], text, "") for prompt, text in zip(prompts, task.questions, strict=True)],
        reward_funcs=[repetition],
        args=GRPOTrainingArgs(**settings(task)),
        iterate_batches=batches,
        training_callback=Ends(),
        end_answer_token="",
    )
    hand_back("mlx-lm-lora", meter, list(map(len, prompts)))


if __name__ == "__main__":
    main()
