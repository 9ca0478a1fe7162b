"""What every study and benchmark does to record its numbers."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from brdyn.models.imgfocus import NAME as OFFLINE
from brdyn.results import run_provenance, to_json
from brdyn.store import write_atomically

__all__ = ["OFFLINE", "RESULTS", "parser", "provenance", "record", "suffix_of"]

RESULTS = Path(__file__).parent / "results"


def parser(description: str | None) -> argparse.ArgumentParser:
    """An argument parser with the options that all of them share."""
    options = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--device", default="cpu", help="cpu or cuda")
    options.add_argument("--out", type=Path, default=RESULTS, help="folder for the results")
    return options


def record(name: str, device: str, content: dict[str, Any], out: Path = RESULTS, file: str = "") -> Path:
    """Write one result file, called as its command by default, with command, device, date and versions."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{file or name}{suffix_of(device)}.json"
    write_atomically(path, to_json({**content, "provenance": provenance(name, device)}))
    return path


def suffix_of(device: str) -> str:
    """What tells the results of a device from those of a CPU, in names of files."""
    return "" if device == "cpu" else f"_{device}"


def provenance(name: str, device: str) -> dict[str, Any]:
    """The command, the date, the device and the versions."""
    return run_provenance(device, ("python", "-m", f"analyses.{name}"))
