"""Take in what runs of the queue left: results into analyses/results, then every page and table written anew.

    python -m analyses.gpu.collect run1 run2            # in the order they were made
    python -m analyses.gpu.collect run2 --state         # trained networks too, into folders that git ignores

Notebooks are redrawn by `make figures`.
"""

from __future__ import annotations

from pathlib import Path

from analyses.claims import load
from analyses.gpu.packing import unpack, unpack_results
from analyses.pages import pages
from analyses.recording import RESULTS as HOME
from analyses.recording import Choice, command, plain_parser
from analyses.render import write_or_check


def take(folder: Path, home: Path, *, state: bool) -> list[str]:
    """The results of one run, and with `state` its networks; names of the files. Raises BrdynError if something is
    missing or damaged."""
    names = unpack_results(folder, home, replace=True)
    return names + (unpack(folder, home) if state else [])


def run(choice: Choice) -> None:
    choice.home.mkdir(parents=True, exist_ok=True)
    for folder in choice.runs:
        last = folder == choice.runs[-1]  # of the others something may be over by now
        print(f"{folder}: {len(take(folder, choice.home, state=choice.state and last))} files")
    write_or_check(pages(load()), check=False)


OPTIONS = plain_parser(__doc__)
OPTIONS.add_argument("runs", nargs="+", type=Path, help="folders that runs left")
OPTIONS.add_argument("--state", action="store_true", help="take the last one's networks and checkpoints too")
OPTIONS.add_argument("--home", type=Path, default=HOME, help="where results go")
main = command(run, OPTIONS, __name__)
