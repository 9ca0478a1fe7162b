"""Templates of the generated pages, and pages written or compared."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd

from analyses.recording import OFFLINE, SMALL_VIT, command, plain_parser
from analyses.statistics import Estimate
from brdyn.store import read_json

HOME = Path(__file__).with_name("templates")


def spread(values: pd.Series, form: str) -> str:
    """Mean, and standard deviation where there are several."""
    if values.isna().all():
        return ""
    return f"{values.mean():{form}}" + (f" ± {values.std():{form}}" if len(values) > 1 else "")


def interval(ends: Any, form: str) -> str:
    """`1.00 to 2.00`."""
    low, high = ends
    return f"{low:{form}} to {high:{form}}"


def listed(values: Any, form: str, by: str = " ", between: str = ", ", before: str = "") -> str:
    """`cls 0.25, patches 0.50`, of numbers or estimates by name."""
    said = {name: one.say(form) if isinstance(one, Estimate) else f"{one:{form}}" for name, one in values.items()}
    return between.join(f"{before}{name}{by}{one}" for name, one in said.items())


def sds(size: float) -> str:
    """` (+1.4 sd)`, or nothing where it is not a number."""
    return f" ({size:+.1f} sd)" if np.isfinite(size) else ""


ENVIRONMENT = jinja2.Environment(
    loader=jinja2.FileSystemLoader(HOME), trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    undefined=jinja2.StrictUndefined, autoescape=False,
)  # fmt: skip
ENVIRONMENT.globals |= {"OFFLINE": OFFLINE, "SMALL_VIT": SMALL_VIT}
ENVIRONMENT.filters |= {
    "as": format,
    "spread": spread,
    "interval": interval,
    "listed": listed,
    "sds": sds,
    "median": np.median,
}


def page(template: str, **context: Any) -> str:
    return ENVIRONMENT.get_template(template).render(**context)


def measured_rows(kind: str, path: Path) -> str:
    """The rows of a benchmark in the table of measured numbers; empty for one that has none."""
    macros: Any = ENVIRONMENT.get_template("benchmarks.j2").module
    rows = getattr(macros, kind, None)
    return rows(read_json(path, "a benchmark"), path.name) if rows else ""


def words(text: str, context: Mapping[str, Any]) -> str:
    """A sentence with numbers in it."""
    return " ".join(ENVIRONMENT.from_string(text).render(**context).split())


def rows_of(section: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """The rows of a section of a table, each with what the section says for all that do not say otherwise."""
    shared = {name: value for name, value in section.items() if name not in ("title", "note", key)}
    return [{**shared, **row} for row in section[key]]


def outdated(pages: Mapping[Path, str]) -> dict[Path, str]:
    """The pages that are not there as they should be."""
    return {path: content for path, content in pages.items() if not path.is_file() or path.read_text() != content}


def write_or_check(pages: Mapping[Path, str], *, check: bool) -> None:
    """Write the pages that changed, or with `check` exit with 1 where one would change."""
    changed = outdated(pages)
    if not check:
        for path, content in changed.items():
            path.write_text(content)
    names = ", ".join(path.name for path in changed) or "nothing"
    print("differs from the recorded results:" if check else "rewritten:", names)
    if check and changed:
        sys.exit(1)


def generator(pages: Callable[[], Mapping[Path, str]], description: str | None, module: str) -> Callable[[], None]:
    """A `main` that writes some pages, or checks them."""
    options = plain_parser(description)
    options.add_argument("--check", action="store_true", help="change nothing; exit 1 if something would change")
    return command(lambda choice: write_or_check(pages(), check=choice.check), options, module)
