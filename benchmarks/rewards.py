"""How fast rewards are: completions a second for each, and seconds for a batch with and without workers.

The batch is 4,096 different completions of about 65 words of thinking and 35 of answer, each with a reference of its
own, scored by the four text rewards of the acceptance configuration: at most 2 s on two cores.

    python benchmarks/rewards.py [--completions 4096] [--workers 1 2] [--group 1]
"""

import argparse
import random
import time

from pipelines.config import RewardConfig
from pipelines.rewards import RewardComposer, RewardContext, RewardRegistry
from pipelines.rewards.workers import SMALL_ITEMS, ParallelComposer, default_workers
from pipelines.sandbox.isolation import available

TEXT_REWARDS = [
    RewardConfig(
        name="format_structure",
        weight=0.05,
        config={
            "min_think_length": 10,
            "min_answer_length": 2,
            "think_length_target_min": 40,
            "think_length_target_max": 90,
        },
    ),
    RewardConfig(
        name="thinking_quality",
        weight=0.2,
        config={"target_length_min": 40, "target_length_max": 90, "excessive_length_threshold": 120},
    ),
    RewardConfig(name="answer_quality", weight=0.1, config={"max_penalty": 1.0, "phrase_penalty": 0.25}),
    RewardConfig(
        name="semantic_similarity",
        weight=0.65,
        config={
            "method": "tfidf",
            "min_length": 10,
            "apply_length_penalty": False,
            "apply_verbosity_penalty": False,
            "verbosity_penalty_strength": 0.01,
        },
    ),
]
NEEDED = {"soft_overlong": {"max_length": 128, "cache_length": 32}, "reasoning_gym": {"outside_sandbox": True}}
SLOW = {"code_execution"}
"""Rewards that start processes of their own; they have a benchmark of their own."""


def vocabulary(generator: random.Random, size: int = 3000) -> list[str]:
    """Made-up words of two to eleven letters."""
    letters = "etaoinshrdlucmfwypvbgkjqxz"
    return ["".join(generator.choices(letters, k=generator.randint(2, 11))) for _ in range(size)]


def completions(count: int, group: int, seed: int = 0) -> list[RewardContext]:
    """`count` completions, `group` to a reference; an answer shares about half of its words with the reference."""
    generator = random.Random(seed)
    known = vocabulary(generator)

    def text(words: int) -> str:
        return " ".join(generator.choices(known, k=words)).capitalize() + "."

    found: list[RewardContext] = []
    while len(found) < count:
        reference = text(35)
        for _ in range(min(group, count - len(found))):
            kept = [word if generator.random() < 0.5 else generator.choice(known) for word in reference.split()]
            thinking, answer = text(65), " ".join(kept)
            found.append(
                RewardContext(
                    prompt_text=text(20),
                    generated_text=f"<think>{thinking}</think>{answer}",
                    reference_completion=f"<think>{text(65)}</think>{reference}",
                    reference_answer=reference,
                    meta={"required_steps": [thinking[:40]], "options": ["red", "blue"], "correct_letters": "A"},
                )
            )
    return found


def best_seconds(composer: RewardComposer | ParallelComposer, contexts: list[RewardContext], repeats: int = 3) -> float:
    """The fastest of some calls."""
    times: list[float] = []
    for _ in range(repeats):
        started = time.perf_counter()
        composer.score(contexts)
        times.append(time.perf_counter() - started)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--completions", type=int, default=4096)
    parser.add_argument("--group", type=int, default=1, help="completions that share a reference")
    parser.add_argument("--workers", type=int, nargs="*", default=sorted({1, 2, default_workers()}))
    options = parser.parse_args()
    contexts = completions(options.completions, options.group)
    sample = contexts[: min(512, len(contexts))]
    print("reward                 completions/s, one process")
    for name in sorted({RewardRegistry.canonical(name) for name in RewardRegistry.names()} - SLOW):
        config = next((reward.config for reward in TEXT_REWARDS if reward.name == name), NEEDED.get(name, {}))
        seconds = best_seconds(RewardComposer([RewardConfig(name=name, config=config)]), sample)
        print(f"{name:<22} {len(sample) / seconds:>12,.0f}")
    text_rewards(contexts, options.workers)
    programs(options.workers)


def text_rewards(contexts: list[RewardContext], counts: list[int]) -> None:
    """The whole batch, and small ones: up to SMALL_ITEMS items a composer with workers does not use them."""
    sizes = [size for size in (1, SMALL_ITEMS // 4, SMALL_ITEMS // 2, 256, 1024) if size < len(contexts)]
    print("\nfour text rewards, ms   " + "".join(f"{size:>9,}" for size in [*sizes, len(contexts)]) + "  (completions)")
    rows: dict[str, RewardComposer | ParallelComposer] = {"in this process": RewardComposer(TEXT_REWARDS)}
    rows |= {f"{count} workers": ParallelComposer(TEXT_REWARDS, workers=count) for count in counts}
    for name, composer in rows.items():
        composer.score(contexts)  # starts the workers
        found = [best_seconds(composer, contexts[:size], repeats=10) for size in sizes]
        found.append(best_seconds(composer, contexts))
        print(f"{name:<23}" + "".join(f"{1000 * seconds:>9.1f}" for seconds in found))
        if isinstance(composer, ParallelComposer):
            composer.close()


def programs(counts: list[int], answers: int = 64) -> None:
    """Answers to HumanEval's kind of task through the sandbox, with every layer that the machine offers."""
    code = "def ordered(values):\n    return sorted(values, reverse=True)\n"
    tests = tuple(f"assert ordered({[n, 3, 1, n + 2]}) == {sorted([n, 3, 1, n + 2], reverse=True)}" for n in range(3))
    contexts = [RewardContext(generated_text=f"```python\n{code}```", test_cases=tests)] * answers
    print(f"\ncode_execution, {len(tests)} tests an answer, isolation {available().level}")
    for count in counts:
        composer = ParallelComposer([RewardConfig(name="code_execution")], workers=count)
        assert composer.score(contexts[: 2 * count]).totals.min() == 1  # starts the workers and their sandboxes
        print(f"{count} workers{answers / best_seconds(composer, contexts):>14.1f} answers/s")
        composer.close()


if __name__ == "__main__":
    main()
