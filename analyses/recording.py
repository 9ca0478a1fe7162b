"""What every study and benchmark does to record its numbers."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from brdyn.models.imgfocus import NAME as OFFLINE
from brdyn.provenance import run_provenance
from brdyn.store import to_json, write_atomically

__all__ = ["OFFLINE", "RESULTS", "outdated", "parser", "provenance", "record", "write_or_check"]

RESULTS = Path(__file__).parent / "results"


def parser(description: str | None) -> argparse.ArgumentParser:
    """An argument parser with the options that all of them share."""
    options = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--device", default="cpu", help="cpu or cuda")
    options.add_argument("--out", type=Path, default=RESULTS, help="folder for the results")
    return options


def write_or_check(description: str | None, pages: Callable[[], Mapping[Path, str]]) -> None:
    """The command of a study that writes pages from recorded results: write them, or with `--check` compare."""
    options = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument(
        "--check", action="store_true", help="change nothing; exit 1 if something would change"
    )
    check = options.parse_args().check
    changed = outdated(pages())
    if not check:
        for path, content in changed.items():
            path.write_text(content)
    names = ", ".join(path.name for path in changed) or "nothing"
    print("differs from the recorded results:" if check else "rewritten:", names)
    sys.exit(1 if check and changed else 0)


def outdated(pages: Mapping[Path, str]) -> dict[Path, str]:
    """The pages that are not there as they should be."""
    return {
        path: content for path, content in pages.items() if not path.is_file() or path.read_text() != content
    }


def record(name: str, device: str, content: dict[str, Any], out: Path = RESULTS) -> Path:
    """Write one result file with the command, the device, the date and the versions."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{name}{suffix_of(device)}.json"
    write_atomically(path, to_json({**content, "provenance": provenance(name, device)}))
    return path


def suffix_of(device: str) -> str:
    """What tells the results of a device from those of a CPU, in names of files."""
    return "" if device == "cpu" else f"_{device}"


def provenance(name: str, device: str) -> dict[str, Any]:
    """The command, the date, the device and the versions."""
    return run_provenance(device, ("python", "-m", f"analyses.{name}"))
