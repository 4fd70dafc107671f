"""How fast rows become arrays, next to the tokenizer alone on the same texts, and how much memory that takes.

Goals: at least 0.8 times the tokenizer's own batch encoding with as many processes; at most 600 MB for a million short
rows, all processes together; arrays that open at once; an unchanged rerun within a second. The tokenizer alone, started
and loaded before the clock runs, is called as transformers calls it, through the Rust library below, with that
library's threads in one process, and by the faster call that leaves out offsets, which is what this project uses.

    python benchmarks/preprocess.py [--model .models/smollm2] [--rows 100000] [--short-rows 1000000] [--processes 2]
"""

import argparse
import json
import multiprocessing
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
BATCH = 1_000
REPEATS = 2
WAYS = ("transformers", "rust", "rust threads", "rust fast")
STORY = (
    "a number of people has bought three red apples and five blue books how many are left after the teacher gave away "
    "half to every student who had none before Sunday so we first add what they had then divide by two which is"
)

Encode = Callable[[list[str]], list[list[int]]]


def write_rows(path: Path, count: int, words: tuple[int, int]) -> None:
    """Rows of so many words in prompt and completion; a number makes each of them another."""
    draw, story = random.Random(0), STORY.split()
    with path.open("w") as stream:
        for index in range(count):
            prompt, completion = (" ".join(draw.choices(story, k=k)) for k in words)
            stream.write(json.dumps({"prompt": f"{index} {prompt}?", "completion": completion}) + "\n")


def raw_seconds(batches: list[list[str]], model: str, processes: int, way: str) -> float:
    """Seconds in which processes that are ready encode all texts to ids, and keep none."""
    threads = way == "rust threads"
    os.environ["TOKENIZERS_PARALLELISM"] = "true" if threads else "false"
    os.environ["RAYON_NUM_THREADS"] = str(processes)
    workers = 1 if threads else processes
    with multiprocessing.get_context("spawn").Pool(workers, initializer=_load, initargs=(model, way)) as pool:
        pool.map(_warm_up, range(4 * workers), chunksize=1)
        started = time.perf_counter()
        pool.map(_encode, batches, chunksize=1)
        return time.perf_counter() - started


_call: Encode


def _load(model: str, way: str) -> None:
    global _call  # noqa: PLW0603
    from pipelines.models.load import load_tokenizer

    tokenizer = load_tokenizer(model)._tokenizer
    rust = tokenizer.backend_tokenizer
    ways: dict[str, Encode] = {
        "transformers": lambda texts: tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"],
        "rust": lambda texts: [each.ids for each in rust.encode_batch(texts, add_special_tokens=False)],
        "rust fast": lambda texts: [each.ids for each in rust.encode_batch_fast(texts, add_special_tokens=False)],
    }
    _call = ways[way.removesuffix(" threads")]


def _encode(texts: list[str]) -> int:
    return sum(map(len, _call(texts)))


def _warm_up(_: int) -> int:
    time.sleep(0.1)
    return _encode(["ready"])


def throughput(model: str, rows: int, processes: int, folder: Path) -> None:
    """The tokenizer alone and the whole stage in turn; the best of each counts. The stage starts its processes too."""
    from pipelines import preprocess
    from pipelines.config import DataConfig, ExperimentConfig, ModelConfig, PathsConfig
    from pipelines.rows import encode

    path = folder / "problems.jsonl"
    write_rows(path, rows, (45, 90))
    data = DataConfig(train_path=str(path), max_prompt_len=100_000)
    paths = PathsConfig(stages=str(folder / "stages"))
    config = ExperimentConfig(data=data, model=ModelConfig(model_path=model), paths=paths)
    batches = _texts(encode.RowEncoder(encode.EncoderSpec(model, data, ("<think>", "</think>"))), path)
    encode.MOST_PROCESSES = processes
    raw: dict[str, list[float]] = {way: [] for way in WAYS}
    ours: list[float] = []
    for _ in range(REPEATS):
        for way in WAYS:
            raw[way].append(raw_seconds(batches, model, processes, way))
        started = time.perf_counter()
        preprocess.run(config, force=True)
        ours.append(time.perf_counter() - started)
    print(f"{rows:,} rows of 45 and 90 words, {processes} processes, load {os.getloadavg()[0]:.1f}")
    print(f"  grpo preprocess                {rows / min(ours):>8,.0f} rows/s")
    for way in WAYS:
        print(f"  tokenizer alone, {way:<13} {rows / min(raw[way]):>8,.0f} rows/s  {min(raw[way]) / min(ours):.2f}")


def _texts(encoder: Any, path: Path) -> list[list[str]]:
    """The rendered prompts and the completions, in batches."""
    rows = (row for chunk in encoder.loader.cut(str(path)) for row in encoder.loader.rows(chunk))
    texts = (text for row in rows for text in (encoder.chat.render(row), row.completion))
    return list(iter(lambda: list(islice(texts, BATCH)), []))


def memory(model: str, rows: int, folder: Path) -> None:
    """The command on short rows; then opening what it wrote, and the same command again."""
    path = folder / "short.jsonl"
    write_rows(path, rows, (3, 3))
    settings = {"model.model_path": model, "data.train_path": path, "paths.stages": folder / "stages"}
    words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    command = [sys.executable, "-m", "grpo_cli", "preprocess", "-q", "--json", *words]
    answer = folder / "answer.json"
    started = time.perf_counter()
    with answer.open("w") as stream, subprocess.Popen(command, stdout=stream) as process:
        peaks = peaks_until_end(process)
    print(f"{rows:,} rows of 3 and 3 words: {time.perf_counter() - started:.1f} s")
    own = peaks.pop(process.pid)
    workers = ", ".join(f"{peak:.0f}" for peak in sorted(peaks.values(), reverse=True))
    print(f"  peak of each process           {own:.0f} MB; workers {workers} MB")
    print(f"  all peaks together             {own + sum(peaks.values()):.0f} MB")
    opened = [sys.executable, __file__, "--open", json.loads(answer.read_text())["directory"]]
    subprocess.run(opened, check=True)
    started = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    print(f"  the same command again         {time.perf_counter() - started:.2f} s")


def peaks_until_end(process: subprocess.Popen[bytes]) -> dict[int, float]:
    """The greatest resident memory of the process and of all that it starts, in MB by process id. Linux only."""
    peaks: dict[int, float] = {}
    while process.poll() is None:
        for pid in _family(process.pid):
            peaks[pid] = _status(pid, "VmHWM") or peaks.get(pid, 0.0)  # the latest: a fork begins as its parent
        time.sleep(0.05)
    return peaks


def _family(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return [pid]
    return [pid, *(member for child in children for member in _family(int(child)))]


def _status(pid: int | str, name: str) -> float:
    """A size in /proc/PID/status, in MB; 0 for a process that has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1e3 for line in lines if line.startswith(name)), 0.0)


def open_arrays(directory: str) -> None:
    """Open a data set, look at its last row, and say what that took."""
    from pipelines.tokens.dataset import TokenDataset

    before, started = _status("self", "VmRSS"), time.perf_counter()
    dataset = TokenDataset(directory, "train")
    milliseconds = 1e3 * (time.perf_counter() - started)
    dataset.row(len(dataset) - 1)
    more = _status("self", "VmRSS") - before
    print(f"  opening {len(dataset):,} rows        {milliseconds:.1f} ms, {more:.1f} MB with one row read")


def main() -> None:
    """Everything in one run."""
    parser = argparse.ArgumentParser(description="How fast rows become arrays, and how much memory that takes.")
    real = ROOT / ".models" / "smollm2"
    parser.add_argument("--model", default=str(real) if real.is_dir() else "builtin:tiny")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--short-rows", type=int, default=1_000_000)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--open", metavar="DIRECTORY", help="only open the arrays there")
    given = parser.parse_args()
    if given.open:
        open_arrays(given.open)
        return
    with tempfile.TemporaryDirectory() as folder:
        throughput(given.model, given.rows, given.processes, Path(folder))
        memory(given.model, given.short_rows, Path(folder))


if __name__ == "__main__":
    main()
