"""The charts of a report as pictures beside its page, for papers and slides."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import Any

WIDE = 640  # pixels of a chart that fills the width of its page
SCALE = 2  # of a png
LETTERS = 90  # of a line above a picture
SMALL = 44  # beside a matrix


def still(spec: Mapping[str, Any], title: str, lines: Sequence[str], kind: str) -> bytes:
    """A chart as a file.

    Parameters
    ----------
    spec : mapping
        Vega-Lite.
    title : str
    lines : sequence of str
        Below the title: of which models and images.
    kind : {"png", "svg", "pdf"}
    """
    import vl_convert

    own = copy.deepcopy(dict(spec))
    fills = own.get("width") == "container"
    if fills:
        own["width"] = WIDE
    own["config"]["background"] = "white"
    letters = LETTERS if fills else SMALL
    own["title"] = {
        "text": wrap(title, letters),
        "subtitle": [part for line in lines for part in wrap(line, letters)],
        "anchor": "start",
        "fontSize": 13,
        "subtitleFontSize": 11,
        "subtitleColor": "#444",
    }
    if kind == "png":
        return vl_convert.vegalite_to_png(own, scale=SCALE)
    return vl_convert.vegalite_to_svg(own).encode() if kind == "svg" else vl_convert.vegalite_to_pdf(own)
