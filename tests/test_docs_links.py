"""The documentation points at what exists, and lists commands and gaps as the code has them."""

import re
from pathlib import Path

import pytest

from grpo_cli.app import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "data" / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
README = (ROOT / "README.md").read_text(encoding="utf-8")
FENCED = re.compile(r"^(```+).*?^\1$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
EXTERNAL = re.compile(r"[a-z]+:")


def links(text: str) -> list[str]:
    """Targets outside code, white space in link texts included."""
    return LINK.findall(re.sub(r"`[^`\n]*`", "", FENCED.sub("", text)))


def anchors(page: Path) -> set[str]:
    """The headings as a link names them: lower case, hyphens for spaces, no punctuation."""
    headings = re.findall(r"^#+ (.+)$", FENCED.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken(page: Path) -> list[str]:
    found: list[str] = []
    for link in links(page.read_text(encoding="utf-8")):
        path, _, anchor = link.partition("#")
        if EXTERNAL.match(link):
            continue
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            found.append(link)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    assert not broken(page)


def test_a_broken_link_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# A title, here\n[a](gone.md) [b](page.md#a-title-here) [c](#nowhere) [d](https://example.org) `[e](x)`"
    )
    assert broken(page) == ["gone.md", "#nowhere"]


def test_every_page_can_be_reached_from_the_readme():
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached or page.suffix != ".md":
            continue
        reached.add(page)
        targets = [
            link.partition("#")[0] for link in links(page.read_text(encoding="utf-8")) if not EXTERNAL.match(link)
        ]
        waiting += [(page.parent / target).resolve() for target in targets if target]
    assert not set(PAGES) - reached


def test_the_readme_lists_every_command():
    assert re.findall(r"^\| `([\w-]+)` \|", README, re.MULTILINE) == list(COMMANDS)
