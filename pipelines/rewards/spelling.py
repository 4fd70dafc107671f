r"""One spelling for what looks the same: width, minus signs, LaTeX, thousands spaces, powers of ten, formulas.

Nothing is computed here: `x^{2}` is `x^2` and `\frac{a+b}{c}` is `(a+b)/c`, but `2+2` is not `4`.
"""

from __future__ import annotations

import re
import unicodedata

MAX_NORMALISED = 4096
"""Longer texts are compared word by word as they are: Unicode normalisation can take quadratic time."""

WRAPPERS = " \t\n*_`\"'.,;:!?\u2018\u2019\u201c\u201d\u00ab\u00bb\u3001\u3002\uff01\uff0c\uff1f"
_DASHES = "\u2010\u2011\u2012\u2013\u2014\u2212\ufe63\uff0d"
_SIGNS = {ord(dash): "-" for dash in _DASHES} | {0x066B: ".", 0x066C: ",", 0x2044: "/", 0x2019: "'"}
_RAISED = re.compile("[⁻⁰¹²³⁴-⁹]+")
_LOWERED = re.compile("[₀-₉]+")
_VULGAR = re.compile("[¼-¾⅐-⅞]")
_SPACED_THOUSANDS = re.compile("(?<=\\d)[\u00a0\u2009\u202f](?=\\d{3}(?!\\d))")

_LATEX = {r"\,": "", r"\!": "", r"\;": " ", r"\:": " ", "{,}": ",", r"\$": "$", r"\%": "%", r"\{": "{", r"\}": "}"}
_MATH_FENCES = (r"\(", r"\)", r"\[", r"\]")
_WORDED = re.compile(
    r"\\(?:text(?:bf|it|rm|tt|sf|up)?|math(?:bf|it|rm|tt|sf)|[mf]box|framebox|operatorname)\s*\{([^{}]*)\}"
)
_LATEX_SPACE = re.compile(r"(?<!\\)\\ ")
_COMMAND = re.compile(r"\\([A-Za-z]+)(?:\s+(?![A-Za-z]))?")
_MEANING = (
    dict.fromkeys(("left", "right", "displaystyle"), "")
    | dict.fromkeys(("quad", "qquad"), " ")
    | dict.fromkeys(("dfrac", "tfrac", "cfrac"), r"\frac")
    | dict.fromkeys(("circ", "degree"), "°")
    | {"pi": "π", "infty": "∞", "sqrt": "√", "pm": "±", "times": "\u00d7", "cdot": "·", "div": "÷", "approx": "≈"}
    | {"le": "≤", "leq": "≤", "ge": "≥", "geq": "≥", "ne": "≠", "neq": "≠", "in": "∈", "cup": "\u222a", "cap": "∩"}
    | {"therefore": "∴", "implies": "⇒", "Rightarrow": "⇒", "rightarrow": "→", "to": "→"}
)
_BRACED = re.compile(r"([\^_√])\{(-?\d+|\w)\}")
_FRACTION = re.compile(r"\\frac\s*(?:\{([^{}]*)\}|(\d))\s*(?:\{([^{}]*)\}|(\d))")
_TOP, _BOTTOM = re.compile(r"-?[\w.,√]+"), re.compile(r"\d[\d.,]*|\w|√\w")
_POWER = re.compile(
    r"(?<![\w.,^/])(?:(\d[\d,]*(?:\.\d+)?|\.\d+)\s*[x\u00d7*·]\s*)?10\^(?:\{([+-]?\d{1,3})\}|([+-]?\d{1,3}))(?![\w^{])"
)
_DOLLARS = re.compile(r"\$([^$]*)\$")
_SPACED_SIGN = re.compile(r"\s*([-,;:=()\[\]{}+*/^<>|\\±\u00d7·÷≤≥≠∈\u222a∩√π∞])\s*")
_ONE_WORD = re.compile(r"\((\w+)\)")


def normalised(text: str) -> str:
    """One spelling for what looks the same, in a text of up to MAX_NORMALISED characters."""
    text = text.strip()
    if len(text) > MAX_NORMALISED:
        return text
    respelled = text
    if not text.isascii():
        respelled = _SPACED_THOUSANDS.sub(",", text).translate(_SIGNS)
        for kind, sign in ((_VULGAR, " "), (_RAISED, "^"), (_LOWERED, "_")):
            respelled = kind.sub(rf"{sign}\g<0>", respelled)
        respelled = unicodedata.normalize("NFKC", respelled).translate(_SIGNS)
    if "\\" in respelled or "{" in respelled:
        respelled = _without_latex(respelled)
    if "10^" in respelled:
        respelled = _POWER.sub(lambda match: f"{match[1] or 1}e{match[2] or match[3]}", respelled)
    return " ".join(respelled.split()) if respelled != text else text


def _without_latex(text: str) -> str:
    for command, meaning in _LATEX.items():
        text = text.replace(command, meaning)
    for fence in _MATH_FENCES:
        text = text.replace(fence, "")
    text = _LATEX_SPACE.sub(" ", text)
    text = _COMMAND.sub(_meaning, _WORDED.sub(r" \1", text))
    text = _BRACED.sub(r"\1\2", text.replace("^{°}", "°").replace("^°", "°"))
    return _FRACTION.sub(_slashed, text)


def _meaning(command: re.Match[str]) -> str:
    return _MEANING.get(command[1], command[0])


def _slashed(fraction: re.Match[str]) -> str:
    top, bottom = (fraction[1] or fraction[2] or "").strip(), (fraction[3] or fraction[4] or "").strip()
    top = top if _TOP.fullmatch(top) else f"({top})"
    bottom = bottom if _BOTTOM.fullmatch(bottom) else f"({bottom})"
    return f" {top}/{bottom}"


def plain(text: str) -> str:
    """A text for comparing words: normalised, case folded, no punctuation around it, no spaces that mean nothing."""
    folded = " ".join(normalised(text).casefold().split())
    if len(folded) > MAX_NORMALISED:
        return folded
    bare = _SPACED_SIGN.sub(r"\1", _DOLLARS.sub(r"\1", folded)).strip(WRAPPERS)
    word = _ONE_WORD.fullmatch(bare)
    return word[1] if word else bare
