"""Every link of the pages and of the README leads somewhere: to a file that is there, and to a heading in it."""

import re
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote

import pytest
from markdown_it import MarkdownIt

from tests.cli.commands import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("analyses/**/*.md")])
OUTSIDE = re.compile(r"[a-z][a-z0-9+.-]*:|//")
READ = MarkdownIt("commonmark").enable("table")


def tokens(text):
    for token in READ.parse(text):
        yield token
        yield from token.children or ()


def targets(text):
    """What links and pictures of a page point to, also those of directives that show a file."""
    for token in tokens(text):
        if token.type in ("link_open", "image"):
            yield token.attrs["href" if token.type == "link_open" else "src"]
        elif token.type == "fence" and re.match(r"\{(include|figure|image|literalinclude)\}", token.info):
            yield token.info.split("}", 1)[1].strip()


def anchors(text):
    """Names of a page's headings, as GitHub and the site make them."""
    found = READ.parse(text)
    titles = ["".join(part.content for part in after.children if part.type in ("text", "code_inline"))
              for token, after in pairwise(found) if token.type == "heading_open"]  # fmt: skip
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def broken(page):
    """The links of a page that lead nowhere."""
    for target in targets(page.read_text()):
        if OUTSIDE.match(target):
            continue
        place, _, name = unquote(target).partition("#")
        there = page.parent / place if place else page
        named = not name or there.suffix != ".md"
        if not there.exists() or not (named or name in anchors(there.read_text())):
            yield target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page):
    assert list(broken(page)) == []


def test_what_leads_nowhere_is_found(tmp_path):
    (tmp_path / "other.md").write_text("# One `two`, three\n")
    page = tmp_path / "page.md"
    page.write_text(
        "[a](other.md) [b](other.md#one-two-three) [c](#here) [d](https://example.org/none)\n\n# Here\n\n"
        "[e](none.md) [f](other.md#two) ![g](none.png) [h](#there)\n\n```{include} gone.md\n```\n"
        "| x |\n| --- |\n| [i](other.md#four) |\n"
    )
    assert list(broken(page)) == ["none.md", "other.md#two", "none.png", "#there", "gone.md", "other.md#four"]


def test_there_are_pages_to_look_at():
    assert {
        Path(ROOT / "README.md"),
        ROOT / "docs" / "index.md",
        ROOT / "docs" / "guide" / "phases.md",
    } <= set(PAGES)


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().split()) <= 700
