"""grpo's own step, from the pieces that `grpo train` is made of. Started by `benchmarks/step.py`."""

import json
from pathlib import Path

from measure import LEARNING_RATE, LORA_SCALE, Meter, Task, hand_back, take

from pipelines import backend, preprocess
from pipelines.config import ExperimentConfig

NO_REFERENCE = "-"
"""A row needs something to be scored by; the reward here reads nothing but the completion."""


def configuration(task: Task) -> ExperimentConfig:
    """Rows and settings of the task; everything else as it comes."""
    folder = Path(task.folder)
    rows = folder / "rows.jsonl"
    rows.write_text(
        "".join(json.dumps({"prompt": question, "completion": NO_REFERENCE}) + "\n" for question in task.questions)
    )
    return ExperimentConfig.model_validate(
        {
            "trainer": {
                "output_dir": str(folder / "run"),
                "learning_rate": LEARNING_RATE,
                "ppo_batch_size": task.prompts,
                "num_rollout_samples": task.group,
                "advantage": {"drop_zero_variance_groups": False},  # nobody else leaves them out
                "seed": task.seed,
            },
            "model": {
                "model_path": task.model,
                "use_lora": not task.full,
                "lora_rank": task.rank,
                "lora_alpha": LORA_SCALE * task.rank,
            },
            "data": {"train_path": str(rows), "max_prompt_len": 256, "max_gen_len": task.tokens},
            "rewards": [{"name": "repetition_penalty", "config": {"ngram_size": 1}}],
            "paths": {"stages": str(folder / "stages")},
        }
    )


def main() -> None:
    """Collect, update, and again."""
    task = take()
    backend.prepare(task.seed)
    import mlx.core as mx

    from pipelines.models.load import load
    from pipelines.models.lora import apply_lora
    from pipelines.rewards.workers import ParallelComposer
    from pipelines.tokens.dataset import TokenDataset
    from pipelines.training import algorithms
    from pipelines.training.assembly import make_updater
    from pipelines.training.collect import RolloutCollector
    from pipelines.training.rounds import Roller

    config = configuration(task)
    dataset = TokenDataset(preprocess.run(config).directory, "train")
    algorithm = algorithms.create(config.trainer)
    loaded = load(task.model)
    loaded.model.set_dtype(getattr(mx, task.dtype))
    if not task.full:
        apply_lora(loaded.model, config.model, task.seed)
    updater = make_updater(
        loaded.model,
        algorithm,
        None,
        full_finetuning=task.full,
        temperature=config.generation.temperature,
        micro_batch_tokens="auto",
        budget_tokens=task.tokens,
    )
    roller = Roller(loaded, dataset, ParallelComposer(config.rewards), config, task.seed)
    collector, meter = RolloutCollector(roller, algorithm), Meter()
    for step in range(1, task.steps + 1):
        meter.begin()
        found = collector.collect(step, task.prompts, lambda count: list(range(count))).sequences
        mx.clear_cache()  # as the training loop does
        meter.rolled(sum(map(len, found.completions)))
        updater.update(found)
        mx.clear_cache()
        meter.end()
    collector.close()
    hand_back("grpo", meter, [len(dataset.prompt_tokens(row)) for row in range(task.prompts)])


if __name__ == "__main__":
    main()
