"""Find the program in a completion: fences, prose around them, several blocks, or no fence at all.

Only text is looked at. Nothing here compiles what a model wrote: a parser can be made to run for hours or to crash, and
this runs in the trainer. Time is linear in the length of the text.
"""

from __future__ import annotations

import re
from collections.abc import Collection

MOST_CHARACTERS = 400_000
"""A longer text is no answer; the rest is not looked at."""

MOST_OF_A_LINE = 1000
"""Characters of a line by which it is judged."""

PYTHON = frozenset({"python", "py", "python3", "py3", "python2", "ipython", "ipython3", "pycon", "sage"})
_FENCE = re.compile(r"^([ \t]*)(`{3,}|~{3,}(?!~))([^\n`]*)$")
_STATEMENT = re.compile(
    r"""(?: (?:async\s+)?def\s+\w+\s*[(\[]
    | class\s+\w+\s*[(:\[]
    | import\s+[\w.]+(?:\s+as\s+\w+)?(?:\s*,\s*[\w.]+)*\s*(?:[;\#].*)?$
    | from\s+[\w.]+\s+import\b
    | @\w
    | (?:if|while|for|with|try|elif|else|except|finally|match|async)\b.*:\s*(?:\#.*)?$
    | (?:if|while|for|with)\b.*:\s+\S.*$
    | (?:assert|raise|del|global|nonlocal)\s+\S
    | (?:pass|break|continue)\s*$
    | \w[\w.\[\]'",\s*]*(?::[\w.\[\],\s|'"]+)?(?:[-+*/%&|^@]|//|\*\*|>>|<<)?=(?!=)\s*\S
    | [\w.]+\(.*\)\s*(?:\#.*)?$
    | [\w.]+[(\[{]\s*$
    | [)\]}][)\]},:.\w\s]*$
    | \# | \"\"\" | ''' )""",
    re.VERBOSE,
)
_OPENS = re.compile(r"(?:(?:async\s+)?def\s+\w+\s*[(\[]|class\s+\w+\s*[(:\[]|import\s+\w|from\s+[\w.]+\s+import\b|@\w)")
_DEFINES = re.compile(r"^(?:async[ \t]+)?(?:def|class)[ \t]+(\w+)|^(\w+)[ \t]*(?::[^=\n]+)?=(?!=)", re.MULTILINE)
_KEPT = re.compile(r"(?:(?:async\s+)?def|class|import|from|@|[A-Za-z_]\w*\s*(?::[^=]+)?=(?!=))(?:\b|\s|\w|$)?")
_TALKS = re.compile(r"\b(?:print|input|sys\.std(?:in|out)|open)\b|__main__")
_BEGINS = re.compile(rf"^{_OPENS.pattern}", re.MULTILINE)
_FUTURE = re.compile(r"^from[ \t]+__future__[ \t]+import[ \t][\w, \t]+$\n?", re.MULTILINE)
_ENDS_OF_TEXT = re.compile(r"(?:<\|\w+\|>|</s>|<eos>|<end_of_turn>)\s*$")


def extract_code(completion: str, wanted: Collection[str] = ()) -> str:
    """The Python program of a completion; empty if there is none.

    `wanted` are the names that the tests use. Of several blocks the last one that defines one of them (or, for
    programs, that reads or prints) is taken whole, after the definitions and imports of those before it; what comes
    later is an example of its use. Blocks in another language are left out. Text after `</think>` goes first. An
    end-of-text token that was left at the end is no part of the code.
    """
    text = completion[:MOST_CHARACTERS].replace("\r\n", "\n").replace("\r", "\n").lstrip("\ufeff")
    text = _ENDS_OF_TEXT.sub("", text)
    answer = text.rpartition("</think>")[2]
    for part in dict.fromkeys((answer, text)):
        code = _from_blocks(_blocks(part), wanted) or _without_fence(part) or _without_fence(_indented(part))
        if code.strip():
            return code.strip("\n") + "\n"
    return ""


def _from_blocks(blocks: list[tuple[str, str]], wanted: Collection[str]) -> str:
    named = [code for language, code in blocks if language in PYTHON and code.strip()]
    unnamed = [code for language, code in blocks if not language and code.strip()]
    found = named or [code for code in unnamed if _looks_like_code(code)] or unnamed[:1]
    if not found:
        return ""
    last = _main_block(found, wanted)
    parts = [*map(_definitions, found[:last]), found[last]]
    future = "".join(line.rstrip("\n") + "\n" for part in parts[1:] for line in _FUTURE.findall(part))
    return future + "\n".join([parts[0], *(_FUTURE.sub("", part) for part in parts[1:])])


def _main_block(blocks: list[str], wanted: Collection[str]) -> int:
    """Index of the block that is the answer."""
    names = [{one or other for one, other in _DEFINES.findall(code)} for code in blocks]
    if wanted:
        fitting = [index for index, defined in enumerate(names) if defined & set(wanted)]
    else:
        fitting = [index for index, code in enumerate(blocks) if _TALKS.search(code)]
    defining = [index for index, code in enumerate(blocks) if _OPENS.search(code)]
    return (fitting or defining or [len(blocks) - 1])[-1]


def _blocks(text: str) -> list[tuple[str, str]]:
    """`(language, code)` of each fenced block; one that is never closed goes to the end.

    As in CommonMark a fence that stands four columns further in than the opening one is part of the block: an example
    in a docstring. Unlike there, words behind a closing fence are prose, a block may begin with the text (whose fence
    was in the prompt), and one that nothing closes ends where a line does with the fence.
    """
    found: list[tuple[str, str]] = []
    opened, indent, language, lines = "", "", "", [""]
    if _begins_inside(text):
        opened, language, lines = "```", "python", []
    for line in text.split("\n"):
        match = _FENCE.match(line)
        if opened:
            outside = match is not None and len(match[1]) < len(indent) + 4 and match[2].startswith(opened)
            if match and outside and (not match[3].strip() or " " in match[3].strip()):
                found.append((language, "\n".join(lines)))
                opened = ""
            elif lines or (line.strip() and not outside):  # else it is blank at its top, or opened twice
                lines.append(line.removeprefix(indent))
        elif match:
            indent, opened = match[1], match[2]
            language, lines = _language(match[3]), []
    if opened:
        ends = next((place for place, line in enumerate(lines) if line.rstrip().endswith(opened)), len(lines))
        last = [line.rstrip().rstrip("`~") for line in lines[ends : ends + 1]]
        found.append((language, "\n".join([*lines[:ends], *last])))
    return [(language, _typed(code)) for language, code in found]


def _language(words: str) -> str:
    """What a fence says its block is written in: the first word, less what some add to it."""
    found = words.strip().lower().strip("{}.").split()
    return re.split(r"[^\w+#]", found[0])[0] if found else ""


def _begins_inside(text: str) -> bool:
    """Whether the text begins with code, and its first fence closes it: a prompt may end with the opening one."""
    before, fence, _ = text.partition("\n```\n")
    if not fence or text.count("\n```") % 2 == 0 or not _is_statement(before.lstrip("\n").split("\n", 1)[0]):
        return False
    return bool(_BEGINS.search(before) or _TALKS.search(before))


def _typed(code: str) -> str:
    """What was typed in an interactive session, without the answers; other code as it is."""
    if not code.lstrip().startswith(">>> "):
        return code
    return "\n".join(line[4:] for line in code.split("\n") if line.startswith((">>> ", "... ")) or line == "...")


def _indented(text: str) -> str:
    """Code that is set off by four columns, as Markdown has it without a fence."""
    return "\n".join(line[4:] for line in text.split("\n") if not line.strip() or line.startswith("    "))


def _looks_like_code(code: str) -> bool:
    lines = [line for line in code.split("\n") if line.strip() and not line[0].isspace()]
    return bool(lines) and _is_statement(lines[0]) and _is_statement(lines[-1])


def _is_statement(line: str) -> bool:
    return _STATEMENT.match(line[:MOST_OF_A_LINE]) is not None


def _definitions(code: str) -> str:
    """The top-level statements of an earlier block that only define things."""
    return "\n".join(
        chunk for chunk in _statements(code) if _KEPT.match(chunk) and "input(" not in chunk.split("\n", 1)[0]
    )


def _statements(code: str) -> list[str]:
    """Top-level statements, each with the lines that are indented below it; decorators stay with what they adorn."""
    chunks: list[list[str]] = []
    quoted = ""
    for line in code.split("\n"):
        continues = not line or line[0] in " \t)]}#" or line.startswith(("else", "elif", "except", "finally"))
        if chunks and (quoted or continues or chunks[-1][-1].startswith("@")):
            chunks[-1].append(line)
        else:
            chunks.append([line])
        quoted = _quoted_after(line, quoted)
    return ["\n".join(chunk) for chunk in chunks]


def _quoted_after(line: str, quoted: str) -> str:
    """The triple quotes that are open behind a line, given those that were open before it."""
    for quotes in ('"""', "'''"):
        if quoted in ("", quotes) and line.count(quotes) % 2:
            return "" if quoted else quotes
    return quoted


def _without_fence(text: str) -> str:
    """Code between sentences: runs of lines that look like statements, with what is indented below them."""
    kept: list[str] = []
    quoted, inside = "", False
    for line in text.split("\n"):
        if not line.strip() and not quoted:
            kept.append("")
            continue
        inside = bool(quoted) or (inside if line[0] in " \t" else _is_statement(line))
        if inside:
            kept.append(line)
            quoted = _quoted_after(line, quoted)
    code = "\n".join(kept).strip("\n")
    if not _OPENS.search(code) and not _TALKS.search(code) and "=" not in code:
        return ""
    return code
