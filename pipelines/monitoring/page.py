"""One self-contained HTML page: no script, nothing from the network, light and dark; every text is escaped.

What is `Html` is markup; any other text becomes visible and escaped on its way in, so that nothing a model wrote can
be read as markup.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from pipelines.monitoring.visible import visible

STYLE = """
:root { color-scheme: light dark; --ink: #1d2430; --dim: #5d6878; --line: #d5dbe3; --paper: #fdfdfc; --soft: #f1f3f6;
  --bar: #3566b8; --good: #1c6b3c; --bad: #a5261d; --badsoft: #fbeceb;
  --c0: #3566b8; --c1: #b8520a; --c2: #1f7f53; --c3: #9b3593; --c4: #7a6a00; --c5: #0f7c8f;
  --c6: #b02a4c; --c7: #5b5f66;
  --thinking: #3566b8; --thinkingsoft: #eaf0fa; --answer: #b8520a; --answersoft: #fcf1e6; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ee; --dim: #9aa6b6; --line: #3a4350; --paper: #15191f;
  --soft: #1f252e; --bar: #7ba4ee; --good: #7fce9d; --bad: #ff9d93; --badsoft: #3a2220;
  --c0: #7ba4ee; --c1: #f0a35c; --c2: #6fce9f; --c3: #da8fd4; --c4: #d8c45c; --c5: #62c6d8;
  --c6: #f08aa4; --c7: #aab0b8;
  --thinking: #7ba4ee; --thinkingsoft: #1b2638; --answer: #f0a35c; --answersoft: #33271a; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 1.5rem 1rem 4rem; color: var(--ink); background: var(--paper);
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .5rem; }
h3 { font-size: 1rem; margin: 1.4rem 0 .3rem; }
p { margin: .4rem 0; } .dim, caption { color: var(--dim); } .good { color: var(--good); } .bad { color: var(--bad); }
ul.warnings { list-style: none; margin: 1rem 0; padding: 0; }
ul.warnings li { background: var(--badsoft); border-left: 4px solid var(--bad); margin: .4rem 0; padding: .4rem .8rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; margin: .4rem 0; }
caption { text-align: left; padding-bottom: .3rem; }
th, td { text-align: left; padding: .25rem .9rem .25rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th, td { overflow-wrap: normal; }
td { max-width: 34rem; overflow-wrap: break-word; white-space: pre-line; }
td:last-child { min-width: 10rem; overflow-wrap: anywhere; }
td .dim { min-width: 12rem; }
th.n, td.n { text-align: right; white-space: nowrap; min-width: 0; }
pre { background: var(--soft); border-radius: 4px; margin: .3rem 0; padding: .5rem .7rem; white-space: pre-wrap;
  max-height: 18rem; overflow-y: auto; font: .85rem/1.45 ui-monospace, monospace; }
pre.prompt { color: var(--dim); display: flex; flex-direction: column-reverse; margin-bottom: 0; max-height: 7rem; }
pre.prompt + pre { margin-top: 2px; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr)); gap: 1rem 1.5rem; }
figure { margin: 0; display: flex; flex-direction: column; justify-content: space-between; }
figcaption { font-size: .9rem; } svg { display: block; width: 100%; height: auto; }
svg rect { fill: var(--bar); } svg line { stroke: var(--line); } svg text { fill: var(--dim); font-size: 10px; }
svg path { fill: none; stroke: currentColor; stroke-width: 1.6; stroke-linejoin: round; }
svg path.faint { stroke-width: 1; opacity: .35; } svg path.band { fill: currentColor; stroke: none; opacity: .18; }
svg path.outline { stroke: var(--ink); stroke-width: 1.3; stroke-dasharray: 3 2; stroke-linejoin: miter; }
svg path.ends { stroke-width: 1.2; opacity: .7; } svg circle { fill: currentColor; }
svg.thinking rect { fill: var(--thinking); } svg.answer rect { fill: var(--answer); }
svg.completion rect { fill: var(--c7); }
svg.span { width: 9rem; } svg rect.ground { fill: var(--line); opacity: .5; }
.c0 { color: var(--c0); } .c1 { color: var(--c1); } .c2 { color: var(--c2); } .c3 { color: var(--c3); }
.c4 { color: var(--c4); } .c5 { color: var(--c5); } .c6 { color: var(--c6); } .c7 { color: var(--c7); }
svg path.dashed { stroke-dasharray: 4 3; } span.dashed { font-style: italic; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; margin: .4rem 0 .8rem; font-size: .9rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(10.5rem, 1fr)); gap: .8rem; margin: 1rem 0; }
.tiles > div { background: var(--soft); border-radius: 6px; padding: .6rem .8rem; }
.tiles b { display: block; font-size: 1.2rem; font-variant-numeric: tabular-nums; }
.tiles .dim { font-size: .85rem; }
.samples { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 26rem), 1fr)); gap: .9rem 1.6rem; }
.samples p { font-size: .85rem; margin: 0 0 .3rem; }
.said { display: grid; grid-template-columns: 4.6rem minmax(0, 1fr); gap: 3px .4rem; font-size: .8rem; }
.said > span { color: var(--dim); padding-top: .4rem; line-height: 1.3; }
.said pre, .said pre.prompt { margin: 0; padding: .4rem .6rem; }
.said pre.reference { background: none; color: var(--dim); padding-top: .3rem; }
.said > span.thinking { color: var(--thinking); } .said > span.answer { color: var(--answer); }
pre.thinking { background: var(--thinkingsoft); border-left: 3px dashed var(--thinking); border-radius: 0 4px 4px 0; }
pre.answer { background: var(--answersoft); border-left: 3px solid var(--answer); border-radius: 0 4px 4px 0; }
.steps details { border-top: 1px solid var(--line); } .steps details[open] { padding-bottom: 1rem; }
.steps summary { margin: .45rem 0; }
summary { cursor: pointer; margin: .6rem 0; }
@media (max-width: 40rem) { .scroll table { width: max-content; } td { max-width: 13rem; } }
@media print { pre, pre.prompt { max-height: none; } .samples > div, figure, tr { break-inside: avoid; }
  h2, h3, summary { break-after: avoid; } }
"""
POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""A browser then fetches nothing and runs nothing, whatever the page should hold."""


class Html(str):
    """Markup, taken as it is."""

    __slots__ = ()


def tag(name: str, *children: str, **attributes: str) -> Html:
    """An element; `class_` is the attribute `class`, texts among the children are escaped."""
    inside = "".join(f' {key.rstrip("_")}="{escape(visible(value))}"' for key, value in attributes.items())
    return Html(f"<{name}{inside}>{joined(children)}</{name}>")


def joined(parts: Iterable[str]) -> Html:
    """Markup as it is, text made visible and escaped."""
    return Html("".join(part if isinstance(part, Html) else escape(visible(part)) for part in parts))


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], numbers: Iterable[int] = ()) -> Html:
    """Cells are texts or markup; the columns in `numbers` stand to the right."""
    right = set(numbers)

    def line(name: str, cells: Sequence[str]) -> Html:
        return tag("tr", *(tag(name, cell, **({"class_": "n"} if i in right else {})) for i, cell in enumerate(cells)))

    body = tag("tbody", *(line("td", cells) for cells in rows))
    return tag("div", tag("table", tag("thead", line("th", columns)), body), class_="scroll")


def page(title: str, *sections: str, generator: str = "grpo") -> str:
    """The whole document; `generator` says which command wrote it."""
    head = (
        Html('<meta charset="utf-8">'),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'),
        Html('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        Html(f'<meta name="generator" content="{escape(generator)}">'),
        tag("title", title),
        tag("style", Html(STYLE)),
    )
    whole = tag("html", tag("head", *head), tag("body", *sections), lang="en")
    return f"<!DOCTYPE html>\n{whole}\n"
