"""Honest answers by the way the code lies in the text around it."""

from sandbox_corpus import Entry

ADD = "def add(a, b):\n    return a + b"
ADDS = ["assert add(1, 2) == 3", "assert add(-4, 9) == 5"]


def text(name: str, why: str, completion: str, tests: list[object] | None = None) -> Entry:
    return Entry(name, completion, tests or ADDS, why, 1.0)


CODE = f"```python\n{ADD}\n```"

LAYOUTS: list[Entry] = [
    text("layout_bare", "code without any fence", ADD),
    text(
        "layout_bare_imports",
        "code without a fence that opens with an import and a comment",
        f"# sums\nimport math\n\n{ADD}\n",
    ),
    text("layout_fence_plain", "a fence without a language", f"```\n{ADD}\n```"),
    text("layout_fence_py", "a fence called py", f"```py\n{ADD}\n```"),
    text("layout_fence_python3", "a fence called python3", f"```python3\n{ADD}\n```"),
    text("layout_fence_capital", "a fence called Python", f"```Python\n{ADD}\n```"),
    text("layout_fence_tilde", "a fence of tildes", f"~~~python\n{ADD}\n~~~"),
    text(
        "layout_fence_indented",
        "a fence within a list",
        """
1. Add them:

   ```python
   def add(a, b):
       return a + b
   ```

""",
    ),
    text("layout_fence_unclosed", "a fence that was cut off after the code", f"Here it is:\n\n```python\n{ADD}\n"),
    text("layout_crlf", "line ends of another system", CODE.replace("\n", "\r\n")),
    text("layout_tabs", "indented by tabs", "```python\ndef add(a, b):\n\treturn a + b\n```"),
    text(
        "layout_prose",
        "prose before and after",
        f"To add numbers, use the operator.\n\n{CODE}\n\nThis runs in O(1). I hope it helps!",
    ),
    text(
        "layout_prose_without_fence",
        "a sentence, then code, then a sentence",
        f"Here is the function you asked for:\n\n{ADD}\n\nIt adds the two numbers.",
    ),
    text(
        "layout_several_fences",
        "helper and solution in fences of their own",
        """
First a helper:

```python
def plus(a, b):
    return a + b
```

Then the solution:

```python
def add(a, b):
    return plus(a, b)
```

""",
    ),
    text(
        "layout_several_versions",
        "a first try, then the final version",
        f"A first try:\n\n```python\ndef add(a, b):\n    return a - b\n```\n\nThat is wrong. Fixed:\n\n{CODE}\n",
    ),
    text(
        "layout_usage_fence",
        "the solution, then an example of its use",
        f"{CODE}\n\nUse it like this:\n\n```python\nprint(add(1, 2))  # 3\n```\n",
    ),
    text(
        "layout_shell_fence",
        "a shell command, the solution and its output",
        f"```bash\npip install nothing\n```\n\n{CODE}\n\n```text\n3\n```\n",
    ),
    text(
        "layout_output_fence",
        "the solution and a fence without language that shows the output",
        f"{CODE}\n\nOutput:\n\n```\n3\n```\n",
    ),
    text(
        "layout_main_guard",
        "a main guard that a function test must not run",
        f"```python\n{ADD}\n\nif __name__ == '__main__':\n    import sys\n    add(input(), '')\n    sys.exit(1)\n```",
    ),
    text(
        "layout_own_asserts",
        "asserts of its own after the code",
        f"```python\n{ADD}\n\nassert add(1, 1) == 2\nprint('ok')\n```",
    ),
    text("layout_think", "thinking before the answer", f"<think>\nI could use a loop.\n</think>\n{CODE}"),
    text("layout_answer_tags", "the code within answer tags", f"<answer>\n{CODE}\n</answer>"),
    text(
        "layout_backticks_inside",
        "backticks within a docstring",
        """
```python
def add(a, b):
    \"\"\"Use `add(1, 2)` or ``add``.\"\"\"
    return a + b
```
""",
    ),
    text(
        "layout_inline_code",
        "inline code in the prose around",
        f"Call `add(a, b)` with `a` and `b`:\n\n{CODE}\n\nThe name `add` says it.",
    ),
    text("layout_bom", "a byte order mark in front", f"\ufeff{ADD}"),
    text(
        "layout_emoji",
        "emoji and other letters in prose and comments",
        """
🚀 好的:

```python
def add(a, b):
    # 两数之和 😀
    return a + b
```
""",
    ),
    text(
        "layout_doctest",
        "a docstring with a doctest",
        """
```python
def add(a, b):
    \"\"\"
    >>> add(1, 2)
    3
    \"\"\"
    return a + b
```
""",
    ),
    text(
        "layout_long",
        "much code around the solution",
        "```python\n" + "\n".join(f"def other{i}(x):\n    return x + {i}\n" for i in range(500)) + f"\n{ADD}\n```",
    ),
]
