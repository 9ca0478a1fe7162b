"""Pictures that are drawn again, into the folder of their result or another."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from brdyn.checked_json import expanded
from brdyn.errors import UsageError
from brdyn.store import files
from brdyn.store.folder import OutputFolder, render
from brdyn.store.json_files import to_json
from brdyn.store.result_files import KINDS

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_pictures(
    folder: str | Path, figures: Mapping[str, Figure], formats: tuple[str, ...], result: str | None = None
) -> list[str]:
    """Write pictures, all of them or none; and then their names into the result, which is there at every moment.

    Parameters
    ----------
    folder : path
    figures : mapping of str to Figure
    formats : tuple of str
    result : str, optional
        The JSON file of the result in that folder, which names its pictures; None where none is there.

    Returns
    -------
    list of str
        The names of the files.

    Raises
    ------
    UsageError
        If the folder cannot be written to, or, without `result`, holds a picture of such a name already, or a result.
    BrdynError
        If the disk is full.
    """
    place = expanded(folder)
    names = [f"{title}.{kind}" for title in figures for kind in formats]
    there = [name for name in names if (place / name).exists()]
    others = [name for name in KINDS if (place / name).exists()]
    if result is None and (there or others):
        raise UsageError(f"{str(folder)!r} holds {[*there, *others][0]} already; choose another `out`")
    with OutputFolder(place, overwrite=True):
        drawn = {f"{title}.{kind}": render(figure, kind) for title, figure in figures.items() for kind in formats}
        files.replace_together(place, drawn)
        if result is not None:
            content = json.loads((place / result).read_bytes())
            content["files"] = sorted({*content.get("files", []), *names})
            files.write_atomically(place / result, to_json(content))
    return names
