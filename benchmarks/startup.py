"""How long the command line takes to answer; the limit for `grpo --help` is 0.3 s."""

import subprocess
import sys
import time

COMMANDS = (["--help"], ["--version"], ["train", "--help"], ["status"], ["doctor"])
REPEATS = 5


def best_seconds(arguments: list[str]) -> float:
    """The fastest of some calls, so that the disk cache is warm."""
    times: list[float] = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "grpo_cli", *arguments], capture_output=True, check=False)
        times.append(time.perf_counter() - started)
    return min(times)


if __name__ == "__main__":
    for arguments in COMMANDS:
        print(f"grpo {' '.join(arguments):<14} {best_seconds(arguments):.3f} s")
