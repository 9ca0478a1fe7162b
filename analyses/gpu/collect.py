"""Take in what GPU pieces left: results into analyses/results, then every page and table written anew.

    python -m analyses.gpu.collect piece1 piece2            # in the order they were made
    python -m analyses.gpu.collect piece2 --state           # trained networks too, into folders that git ignores

Notebooks are redrawn by `make figures`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from analyses.gpu.packing import MANIFEST, unpack, unpack_results
from analyses.gpu.piece import ROOT
from analyses.recording import RESULTS as HOME
from brdyn.errors import BrdynError
from brdyn.results import read_json

PAGES = ("pages",)


def take(folder: Path, home: Path, *, state: bool) -> list[str]:
    """The results of one piece, and with `state` its networks; names of the files.

    Raises
    ------
    BrdynError
        If something is missing or damaged.
    """
    run = read_json(folder / MANIFEST, "the state of a run", ("run",))["run"]
    names = unpack_results(folder, home, replace=True)
    return names + (unpack(folder, home, run) if state else [])


def main() -> None:
    """Take them in."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("pieces", nargs="+", type=Path, help="folders that pieces left")
    options.add_argument(
        "--state", action="store_true", help="take the last one's networks and checkpoints too"
    )
    options.add_argument("--home", type=Path, default=HOME, help="where results go")
    options.add_argument("--no-pages", action="store_true", help="leave pages and tables as they are")
    choice = options.parse_args()
    try:
        choice.home.mkdir(parents=True, exist_ok=True)
        for folder in choice.pieces:
            last = folder == choice.pieces[-1]  # of the others something may be over by now
            print(f"{folder}: {len(take(folder, choice.home, state=choice.state and last))} files")
    except BrdynError as error:
        options.error(str(error))
    if not choice.no_pages:
        for name in PAGES:
            done = subprocess.run([sys.executable, "-m", f"analyses.{name}"], cwd=ROOT)
            if done.returncode:
                sys.exit(f"analyses.{name} failed; its message is above")


if __name__ == "__main__":
    main()
