"""The control: what trainers do that run an answer by `exec` in their own process, with an alarm as the only limit.

Run by itself: an entry `{"completion", "tests"}` as JSON on standard input, the score as the last line of output.
"""

import contextlib
import io
import json
import re
import signal
import sys

SECONDS = 1


def extract(completion: str) -> str:
    blocks = re.findall(r"```(?:python|py)?\s*\n(.*?)```", completion, re.DOTALL | re.IGNORECASE)
    return "\n".join(blocks) if blocks else completion


def stop(number, frame):
    raise TimeoutError


def passes(code: str, test) -> bool:
    space = {"__name__": "answer"}
    if isinstance(test, dict) and "input" in test:
        space["__name__"] = "__main__"
        written, sys.stdin = io.StringIO(), io.StringIO(test["input"])
        with contextlib.redirect_stdout(written), contextlib.suppress(SystemExit):
            exec(code, space)
        return written.getvalue().split() == test["expected"].split()
    exec(code, space)
    if isinstance(test, dict):
        exec(test["check"], space)
        space["check"](space[test["entry_point"]])
    elif re.match(r"\w+\(.*\) == ", test) and "\n" not in test:
        return bool(eval(test, space))
    else:
        exec(test, space)
    return True


def score(completion: str, tests: list) -> float:
    code, passed = extract(completion), 0
    signal.signal(signal.SIGALRM, stop)
    for test in tests:
        signal.alarm(SECONDS)
        try:
            passed += passes(code, test)
        except Exception:  # noqa: BLE001 - a wrong answer, says the naive trainer
            pass
        finally:
            signal.alarm(0)
    return passed / len(tests)


if __name__ == "__main__":
    said, entry = sys.stdout, json.load(sys.stdin)
    print(score(entry["completion"], entry["tests"]), file=said, flush=True)
