"""Which text of a completion is the program."""

import textwrap
import time

import pytest

from pipelines.rewards.code_extraction import extract_code

F = "def f(x):\n    return x + 1"
USE = "print(f(1))"


def fence(code, language="python"):
    return f"```{language}\n{code}\n```"


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        (F, F),
        (fence(F), F),
        (fence(F, ""), F),
        (f"Sure!\n\n{fence(F)}\n\nHope it helps.", F),
        (f"~~~py\n{F}\n~~~", F),
        (f"```python\n{F}", F),
        (f"````python\n{F}\n# ```\n````", f"{F}\n# ```"),
        (f"{fence('pip install x', 'bash')}\n{fence(F)}\n{fence('2', 'text')}", F),
        (f"{fence(F)}\nOutput:\n{fence('2', '')}", F),
        (f"<think>{fence('def f(x): return 0')}</think>\n{fence(F)}", F),
        (f"{fence(F)}\nUse it:\n{fence(USE)}", F),
        (f"{fence('def f(x):' + chr(10) + '    return 0')}\nNo:\n{fence(F)}", "def f(x):\n    return 0\n" + F),
        (f"{fence('import math')}\n{fence(F)}", f"import math\n{F}"),
        (f"{fence('import math' + chr(10) + 'print(input())')}\n{fence(F)}", f"import math\n{F}"),
        (f"Here is a function for the task:\n\n{F}\n\nIt adds one, of course.", F),
        (f"```python\n{F}```", F),
        (f"{fence(F)} That is it.\n", F),
        (f"{fence(F)}<|im_end|>", F),
        (f"{fence(F)}</s>\n", F),
        (f"{F}\n```\n\nIt adds one.", F),
        (f"{F}\n```\n\nUse it:\n\n{fence(USE)}", F),
        (f"```python\n{fence(F)}", F),
        (f"In short:\n\n{textwrap.indent(F, '    ')}\n\nThat is all.", F),
        (fence(">>> def f(x):\n...     return x + 1\n...\n>>> f(1)\n2"), f"{F}\n\nf(1)"),
        (f"{fence('import math')}\n{fence('from __future__ import annotations' + chr(10) + F)}",
         f"from __future__ import annotations\nimport math\n{F}"),
        ("I do not know.", ""),
        ("", ""),
        ("The answer is 42.", ""),
    ],
)  # fmt: skip
def test_functions(completion, expected):
    assert extract_code(completion, {"f"}).strip() == expected


def test_programs_take_the_block_that_talks():
    helper, program = "def helper(n):\n    return n", "n = int(input())\nprint(helper(n))"
    assert extract_code(f"{fence(helper)}\n{fence(program)}\n{fence('3', '')}").strip() == f"{helper}\n{program}"
    assert extract_code(f"{program}\n```\n\nIt says n.").strip() == program


@pytest.mark.parametrize(
    "text",
    ["```python\n" + "(" * 300_000, "```\n" * 80_000,
     "a = " * 100_000, "x" * 5_000_000, "def " * 100_000, "\n" * 400_000,
     "1, " * 130_000, "'''\n" * 100_000, "x[" * 200_000, "a: " * 130_000, "f(" * 200_000, "import a, " * 40_000,
     "```python\nx = '''\n" + "y\n" * 100_000 + "```\n```python\ndef f(): pass\n```",
     "```python\n" + "\n" * 200_000 + "```x\n" * 40_000,
     "```\nx = 1\n```\n```\nfrom __future__ import" + " " * 200_000 + "!\ndef f(): pass\n```"],
    ids=range(15),
)  # fmt: skip
def test_any_text_takes_little_time(text):
    start = time.process_time()
    assert isinstance(extract_code(text, {"f"}), str)
    assert time.process_time() - start < 1.0
