"""textpolicy's GRPO step, from the pieces its documentation joins: environment, runner, trainer. Started by `step.py`.

Its batched policy is used, which is faster than the one that writes completion after completion. Not to be made equal:
it decodes one prompt's group at a time; rewards are compared with the mean of the whole batch; the trainer compiles its
step, for which a CPU calls a C++ compiler. Its own LoRA helper knows two layers of the attention only, so mlx-lm's is
used, as on the other sides.
"""

from measure import LEARNING_RATE, LORA_SCALE, Meter, hand_back, reward, take


def main() -> None:
    """Collect, train, and again."""
    task = take()
    import mlx.core as mx
    from mlx import optimizers
    from mlx_lm.tuner.utils import linear_to_lora_layers
    from textpolicy.algorithms import grpo
    from textpolicy.environment.text_generation import TextGenerationEnv
    from textpolicy.generation.mlx_generation import create_batched_policy, load_model
    from textpolicy.rollout import RolloutRunner, create_strategy
    from textpolicy.training import Trainer

    mx.random.seed(task.seed)
    model, tokenizer = load_model(task.model)
    model.set_dtype(getattr(mx, task.dtype))
    model.freeze()
    linear_to_lora_layers(model, len(model.layers), {"rank": task.rank, "scale": LORA_SCALE, "dropout": 0.0})
    prompts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], add_generation_prompt=True, tokenize=False
        )
        for question in task.questions
    ]
    policy = create_batched_policy(model, tokenizer, {"max_tokens": task.tokens, "temperature": 1.0, "top_p": 1.0})
    environment = TextGenerationEnv(
        prompts,
        lambda completion, **_: reward(completion),
        max_tokens=task.tokens,
        tokenizer=tokenizer,
        group_size=task.group,
    )
    rows = task.prompts * task.group
    runner = RolloutRunner(environment, policy=policy, strategy=create_strategy("grpo"), max_steps=rows)
    trainer = Trainer(
        model=model,
        advantage_fn=grpo.compute_advantages,
        loss_fn=grpo.policy_loss,
        optimizer=optimizers.AdamW(learning_rate=LEARNING_RATE),
        max_grad_norm=1.0,
    )
    meter = Meter()
    for _ in range(task.steps):
        meter.begin()
        rollouts = runner.collect_batched(policy, task.group)
        meter.rolled(sum(len(tokens) for episode in rollouts.episodes for tokens in episode.act))
        trainer.train(grpo.select_all_data(rollouts))
        meter.end()
    hand_back("textpolicy", meter, [len(tokenizer.encode(prompt)) for prompt in prompts])


if __name__ == "__main__":
    main()
