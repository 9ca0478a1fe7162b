"""`brdyn plot` and `brdyn compare`: result folders drawn, and held against each other, without computing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from brdyn.choices import THEMES, one_of
from brdyn.cli import output
from brdyn.cli.checks import check_out
from brdyn.cli.options import OUTPUT, Formats, Overwrite
from brdyn.errors import UsageError
from brdyn.progress import stage
from brdyn.store import check_formats

COMPARED = "compare.json"

Theme = Annotated[
    str, typer.Option("--theme", help="Look of the pictures: light, dark or paper.", rich_help_panel=OUTPUT)
]


def plot(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a result, or its JSON file.")],
    theme: Theme = "light",
    formats: Formats = "png",
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the pictures (default: the result's own, where they replace those that are there).",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
) -> None:
    """Draw the pictures of a result again, in another look or format.

    Reads what a command wrote and computes nothing.
    """
    kinds = check_formats(formats)
    one_of("theme", theme, THEMES)
    with stage("loading"):
        from brdyn import plots, read
        from brdyn.store.pictures import write_pictures

        result = read(run)
    with stage("drawing"):
        with plots.themed(theme):
            figures = plots.draw(result)
        if not figures:
            raise UsageError(f"there is no picture of {str(run)!r}, {result!r}")
        home = run if run.is_dir() else run.parent
        folder = home if out is None else out
        files = write_pictures(folder, figures, kinds, result.FILE if folder.resolve() == home.resolve() else None)
    if output.wants_json():
        output.print_json({"kind": Path(result.FILE).stem, "folder": str(folder), "files": files})
    else:
        output.say(f"{result.answer()}\n\nwritten to {folder}: {', '.join(files)}")


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of results of one kind.")],
    theme: Theme = "light",
    formats: Formats = "png",
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for compare.json, compare.csv and pictures (default: the table is printed alone).",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Hold results of one kind against each other: one table, and curves over relative depth in one picture.

    Reads what commands wrote and computes nothing.
    """
    kinds = check_formats(formats)
    one_of("theme", theme, THEMES)
    if out is not None:
        check_out(out, COMPARED, overwrite)
    with stage("loading"):
        from brdyn import compare as held_against
        from brdyn import plots

        found = held_against(*runs)
    files: list[str] = []
    notes = found.notes()
    if out is not None:
        with stage("drawing"):
            with plots.themed(theme):
                figures = plots.draw_comparison(found)
            files = found.save(out, overwrite=overwrite, figures=figures, formats=kinds)
        if not figures:
            notes.append(f"there is no picture of several results of {found.kind}: the table alone")
    if output.wants_json():
        output.print_json(
            {**found.to_dict(), "notes": notes, "folder": None if out is None else str(out), "files": files}
        )
        return
    output.say(found.summary())
    for note in notes[len(found.notes()) :]:
        output.say(note)
    if out is not None:
        output.say(f"\nwritten to {out}: {', '.join(files)}")
