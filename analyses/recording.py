"""What every study and benchmark does to record its numbers."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from brdyn import BrdynError
from brdyn.classifiers import packaged
from brdyn.models import imgfocus
from brdyn.provenance import run_provenance
from brdyn.store import to_json, write_atomically

OFFLINE, SMALL_VIT = imgfocus.NAME, packaged.NAME
Choice = argparse.Namespace
ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "analyses" / "results"


def plain_parser(description: str | None) -> argparse.ArgumentParser:
    """An argument parser that shows a description as it is."""
    shown = argparse.RawDescriptionHelpFormatter
    return argparse.ArgumentParser(description=description, formatter_class=shown)


def parser(description: str | None) -> argparse.ArgumentParser:
    """An argument parser with the options that studies and benchmarks share."""
    options = plain_parser(description)
    options.add_argument("--device", default="cpu", help="cpu or cuda")
    options.add_argument("--out", type=Path, default=RESULTS, help="folder for the results")
    return options


def command(work: Callable[[Choice], None], options: argparse.ArgumentParser, module: str) -> Callable[[], None]:
    """A `main` that does what its options ask for, and says an error that a user can mend in a line; it is called here
    where its module is run itself, as its name tells."""

    def main() -> None:
        try:
            work(options.parse_args())
        except BrdynError as error:
            options.error(str(error))

    if module == "__main__":
        main()
    return main


def record(name: str, device: str, content: dict[str, Any], out: Path = RESULTS, file: str = "") -> Path:
    """Write one result file, called by its name by default, with command, device, date and versions."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{file or name}{suffix_of(device)}.json"
    write_atomically(path, to_json({**content, "provenance": run_provenance(device)}))
    return path


def suffix_of(device: str) -> str:
    """What tells the results of a device from those of a CPU, in names of files."""
    return "" if device == "cpu" else f"_{device}"
