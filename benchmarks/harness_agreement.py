"""Do our verdicts agree with lm-evaluation-harness, item by item, on the same model, prompts and greedy decoding?

Nothing is downloaded. Word problems, GSM8K's own from a file or generated in its format, are asked as plain text with
worked examples and through the chat template; multiple-choice questions, generated, are scored by likelihood. The
harness reads the same rows from a task folder written for it. It has to be installed, with torch, in an environment of
its own:

    python benchmarks/harness_agreement.py --harness ENV/bin/python --model .models/smollm2 [--items 200] [--gsm8k FILE]

Exits 1 below 99 % of equal verdicts in any task. Float32 on the CPU on both sides; a difference in the last bits of
a logit can turn one token of a long answer, which is why it is not 100 % by definition.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from pipelines import backend
from pipelines.config import ExperimentConfig
from pipelines.evaluation import scoring
from pipelines.evaluation.base import Sources
from pipelines.evaluation.gsm8k import INSTRUCTION
from pipelines.evaluation.gsm8k_examples import EXAMPLES
from pipelines.evaluation.registry import EvaluatorRegistry
from pipelines.models.load import LoadedModel, load

ENOUGH = 0.99
LENIENT = r"(-?[$0-9.,]{2,})|(-?[0-9]+)"
HARNESS = """
import json, sys
from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager
given = json.loads(sys.argv[1])
found = simple_evaluate(
    model="hf", model_args={"pretrained": given["model"], "dtype": "float32"}, tasks=[given["task"]],
    task_manager=TaskManager(include_path=given["folder"], include_defaults=False), batch_size=given["batch"],
    device="cpu", apply_chat_template=given["chat"], log_samples=True, bootstrap_iters=0,
)
samples = found["samples"][given["task"]]
keep = ("doc_id", "filter", "exact_match", "acc", "acc_norm", "filtered_resps", "resps")
rows = [{key: sample[key] for key in keep if key in sample} for sample in samples]
open(given["out"], "w").write(json.dumps(rows, default=str))
"""
"""What the harness's environment runs; `lm-eval` as a command would need packages for its tables besides."""

Row = dict[str, Any]
Found = dict[str, list[Any]]
"""For each thing that is compared what was found on the items, in their order; verdicts are booleans."""

PROBLEMS: tuple[tuple[str, Callable[[int, int], int]], ...] = (
    ("{name} has {a} pens and buys {b} more. How many pens does {name} have now?", lambda a, b: a + b),
    ("{name} had {a} plums and ate {b} of them. How many plums are left?", lambda a, b: a - b),
    ("There are {a} boxes with {b} books each. How many books are there in all?", lambda a, b: a * b),
    ("A ticket costs ${a}. How many dollars does {name} pay for {b} tickets?", lambda a, b: a * b),
)
NAMES = ("Ann", "Ben", "Cleo", "Dan", "Eva")
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
WORDS += ("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen")


def problems(count: int, draw: random.Random) -> list[Row]:
    """Word problems in GSM8K's format."""
    rows: list[Row] = []
    for number in range(count):
        text, solve = PROBLEMS[number % len(PROBLEMS)]
        a, b = draw.randint(10, 40), draw.randint(2, 9)
        question = text.format(name=draw.choice(NAMES), a=a, b=b)
        rows.append({"question": question, "answer": f"Count them.\n#### {solve(a, b)}"})
    return rows


def choices(count: int, draw: random.Random) -> list[Row]:
    """Questions with four choices, words of different lengths, in ARC's format."""
    rows: list[Row] = []
    for _ in range(count):
        a, b = draw.randint(0, 8), draw.randint(1, 8)
        wrong = draw.sample([word for word in WORDS if word != WORDS[a + b]], 3)
        texts = draw.sample([WORDS[a + b], *wrong], 4)
        key = "ABCD"[texts.index(WORDS[a + b])]
        columns = {"text": texts, "label": list("ABCD")}
        rows.append({"question": f"What is {WORDS[a]} plus {WORDS[b]}?", "choices": columns, "answerKey": key})
    return rows


def gsm8k_task(name: str, strict: str, text: str, max_tokens: int, **more: Any) -> Row:
    """A harness task that reads numbers as its own gsm8k tasks do."""
    readings = {
        "strict-match": {"regex_pattern": strict},
        "flexible-extract": {"regex_pattern": LENIENT, "group_select": -1},
    }
    take = {"function": "take_first"}
    return {
        "task": name,
        "output_type": "generate_until",
        "doc_to_text": text,
        "doc_to_target": "{{answer}}",
        "generation_kwargs": {"until": ["Q:", "</s>", "<|im_end|>"], "do_sample": False, "max_gen_toks": max_tokens},
        "filter_list": [
            {"name": reading, "filter": [{"function": "regex", **settings}, take]}
            for reading, settings in readings.items()
        ],
        "metric_list": [
            {
                "metric": "exact_match",
                "aggregation": "mean",
                "higher_is_better": True,
                "ignore_case": True,
                "regexes_to_ignore": [",", r"\$", "(?s).*#### ", r"\.$"],
            }
        ],
        **more,
    }


def tasks(shots: int, max_tokens: int) -> dict[str, tuple[str, Row, Row]]:
    """By name: our evaluator, its settings, and the harness's task."""
    examples = [{"question": question, "answer": answer} for question, answer in EXAMPLES[:shots]]
    metrics = [{"metric": name, "aggregation": "mean", "higher_is_better": True} for name in ("acc", "acc_norm")]
    return {
        "gsm8k_plain": (
            "gsm8k",
            {"few_shot": shots, "chat": False},
            gsm8k_task(
                "gsm8k_plain",
                r"The answer is (\-?[0-9\.\,]+).",
                "Q: {{question}}\nA:",
                max_tokens,
                num_fewshot=shots,
                fewshot_config={"sampler": "first_n", "samples": examples},
            ),
        ),
        "gsm8k_chat": (
            "gsm8k",
            {"until": ["Q:"]},
            gsm8k_task("gsm8k_chat", r"#### (\-?[0-9\.\,]+)", "{{question}}\n\n" + INSTRUCTION, max_tokens),
        ),
        "mcq": (
            "mcq",
            {"scoring": "loglikelihood"},
            {
                "task": "mcq",
                "output_type": "multiple_choice",
                "doc_to_text": "Question: {{question}}\nAnswer:",
                "doc_to_target": "{{choices.label.index(answerKey)}}",
                "doc_to_choice": "{{choices.text}}",
                "metric_list": metrics,
            },
        ),
    }


def ours(loaded: LoadedModel, evaluator: str, settings: Row, rows: Path, max_tokens: int) -> Found:
    """What our evaluator finds on these rows."""
    config = ExperimentConfig.model_validate({"model": {"model_path": str(loaded.directory)}})
    benchmark = EvaluatorRegistry.create(evaluator, {"path": str(rows), **settings})
    prompts = benchmark.items(Sources(loaded.tokenizer, config, _no_validation))
    records = scoring.score(benchmark, prompts, loaded, config.generation, max_tokens=max_tokens, seed=0)
    if evaluator == "mcq":
        return {"acc": [r["correct"] for r in records], "acc_norm": [bool(r["also"]["acc_norm"]) for r in records]}
    return {
        "strict": [r["correct"] for r in records],
        "lenient": [bool(r["also"]["lenient"]) for r in records],
        "read strictly": [r["extracted"] or "[invalid]" for r in records],
        "completion": [r["completion"].strip() for r in records],
    }


def theirs(python: str, model: str, task: Row, rows: Path, folder: Path, *, chat: bool, batch: int) -> Found:
    """What the harness finds on the same rows."""
    data = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(rows)}}, "test_split": "test"}
    (folder / f"{task['task']}.yaml").write_text(yaml.safe_dump(data | task))
    given = {"model": model, "task": task["task"], "folder": str(folder), "chat": chat, "batch": batch}
    out = folder / f"{task['task']}.out"
    subprocess.run([python, "-c", HARNESS, json.dumps(given | {"out": str(out)})], check=True, stdout=sys.stderr)
    samples = sorted(json.loads(out.read_text()), key=lambda sample: sample["doc_id"])
    if task["output_type"] == "multiple_choice":
        return {name: [bool(sample[name]) for sample in samples] for name in ("acc", "acc_norm")}
    strict, lenient = (
        [sample for sample in samples if sample["filter"] == reading]
        for reading in ("strict-match", "flexible-extract")
    )
    return {
        "strict": [bool(sample["exact_match"]) for sample in strict],
        "lenient": [bool(sample["exact_match"]) for sample in lenient],
        "read strictly": [sample["filtered_resps"][0] for sample in strict],
        "completion": [sample["resps"][0][0].strip() for sample in strict],
    }


def compare(task: str, asked: argparse.Namespace, loaded: LoadedModel, folder: Path) -> float:
    """Ask both, print a line for each thing compared; the smallest share of equal verdicts."""
    evaluator, settings, theirs_task = tasks(asked.shots, asked.max_tokens)[task]
    rows = folder / "items.jsonl"
    if evaluator == "gsm8k" and asked.gsm8k:
        items = [json.loads(line) for line in asked.gsm8k.read_text(encoding="utf-8").split("\n")[: asked.items]]
    else:
        items = (choices if evaluator == "mcq" else problems)(asked.items, random.Random(0))
    rows.write_text("".join(json.dumps(row) + "\n" for row in items))
    started = time.perf_counter()
    mine = ours(loaded, evaluator, settings, rows, asked.max_tokens)
    half = time.perf_counter()
    chat = task == "gsm8k_chat"
    other = theirs(asked.harness, asked.model, theirs_task, rows, folder, chat=chat, batch=asked.batch)
    print(f"{task}: {half - started:.0f} s here, {time.perf_counter() - half:.0f} s there")
    shares: list[float] = []
    for what, found in mine.items():
        share = sum(one == two for one, two in zip(found, other[what], strict=True)) / len(found)
        line = f"  {what}: {share:.1%} of {len(found)} items equal"
        if isinstance(found[0], bool):
            shares.append(share)
            line += f"; right {sum(found)} here, {sum(other[what])} there"
        print(line, flush=True)
    return min(shares)


def _no_validation() -> Any:
    raise AssertionError("every task here has a file")


def main() -> int:
    """0 if both agree on enough items of every task."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--harness", required=True, metavar="PYTHON", help="an interpreter that has lm-eval and torch")
    parser.add_argument("--model", default=".models/smollm2")
    parser.add_argument("--items", type=int, default=200)
    parser.add_argument("--gsm8k", type=Path, metavar="FILE", help="GSM8K's test.jsonl, not generated rows")
    parser.add_argument("--shots", type=int, default=8, help="worked examples of the plain word problems")
    parser.add_argument("--max-tokens", type=int, default=96)
    parser.add_argument("--batch", type=int, default=16, help="the harness's batch size")
    parser.add_argument("--tasks", nargs="+", default=["gsm8k_plain", "gsm8k_chat", "mcq"])
    asked = parser.parse_args()
    backend.prepare(0)
    loaded = load(asked.model)
    worst = 1.0
    for task in asked.tasks:
        with tempfile.TemporaryDirectory() as folder:
            worst = min(worst, compare(task, asked, loaded, Path(folder)))
    return int(worst < ENOUGH)


if __name__ == "__main__":
    sys.exit(main())
