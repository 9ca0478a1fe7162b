"""What commands print and what they cost, in the pages of the guide, from recorded results.

python -m analyses.examples            # rewrite
python -m analyses.examples --check    # fail if a page says something else than its result

A page says where: `<!-- recorded: phases/imgfocus_vits14, 9 lines -->`. What follows up to `<!-- end -->` is written.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from textwrap import shorten

import brdyn
from analyses.recording import RESULTS, ROOT
from analyses.render import generator
from brdyn.words import table_lines

GUIDE = ROOT / "docs" / "guide"
PLACE = re.compile(r"(<!-- recorded: (\S+), (\d+) lines -->\n).*?(<!-- end -->)", re.DOTALL)
WIDEST = 150  # letters of a line


def said(folder: str, count: int) -> str:
    """The command of a recorded result, the first lines that it printed of what came out, and how long it took."""
    result = brdyn.read(RESULTS / folder)
    assert result.provenance is not None
    run = result.provenance.details
    command = re.sub(r" --(out|workers|device) \S+| --overwrite", "", run["command"])
    printed = [*result.answer().splitlines(), "", *table_lines(result.overview()), "", *result.remarks()]
    lines = [shorten(line, WIDEST, placeholder=" …") if len(line) > WIDEST else line for line in printed]
    shown = [*lines[:count], *(["…"] if len(lines) > count else [])]
    cost = f"{run['seconds']:.0f} seconds on {run['device']}"
    return "\n".join(["", "```console", f"$ {command}", *shown, "```", "", f"{result.caption}: {cost}.", "", ""])


def pages() -> dict[Path, str]:
    """The pages that have such places, as they should be."""
    found = {path: path.read_text() for path in sorted(GUIDE.rglob("*.md"))}
    return {path: "".join(_written(text)) for path, text in found.items() if PLACE.search(text)}


def _written(text: str) -> Iterator[str]:
    last = 0
    for place in PLACE.finditer(text):
        yield text[last : place.start()] + place[1] + said(place[2], int(place[3])) + place[4]
        last = place.end()
    yield text[last:]


main = generator(pages, __doc__, __name__)
