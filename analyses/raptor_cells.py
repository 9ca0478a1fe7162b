"""The cells that `analyses.raptor_on_vits` recorded, as tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analyses.recording import OFFLINE, RESULTS
from brdyn.phases import Phases
from brdyn.store import read_json

RAPTOR = RESULTS / "raptor"
SIZES = ("gpu", "cpu")


class Cells(NamedTuple):
    """A recorded study.

    Attributes
    ----------
    summary : DataFrame
        One row per cell, by name: `k`, `partition`, `draw`, `varies` (`partition`, `seed` or `recipe`), `r2` of all
        tokens at the last layer (autoregressive), `r2_least` over the layers, `r2_one_step` (mean over layers),
        `kept` and `kept_low`, `kept_high` (linear probe), `kept_knn`, `parameters` (over the teacher's), `steps`,
        `images_seen`, `seconds`.
    fidelity : DataFrame
        All curves: the rows of :class:`brdyn.raptor.fidelity.Fidelity` with `cell` and `images` (`test`, `photos`).
    phases : Phases
    size : dict
        How large the study is.
    teacher : dict of str to float
        Accuracy of the teacher by probe.
    failed : dict of str to str
    provenance : dict
        Of the newest cell.
    """

    summary: pd.DataFrame
    fidelity: pd.DataFrame
    phases: Phases
    size: dict[str, Any]
    teacher: dict[str, float]
    failed: dict[str, str]
    provenance: dict[str, Any]


def read_cells(size: str | None = None, model: str = OFFLINE, folder: Path = RAPTOR) -> Cells:
    """Every cell of a study: the one named, or the largest that has its main fits (max-cut, k = 2 to 4).

    Raises
    ------
    UsageError
        If there is none.
    """
    place = folder / model.replace("/", "--")
    there = [one for one in SIZES if all((place / one / f"maxcut_k{k}.json").is_file() for k in (2, 3, 4))]
    home = place / (size or (there or SIZES)[0])
    phases = Phases.from_dict(read_json(home / "phases.json", "the phases of a Raptor study"))
    rows, curves, failed = [], [], {}
    newest: dict[str, Any] = {}
    for path in sorted(home.glob("*.json")):
        if path.name == "phases.json":
            continue
        cell = read_json(path, "a cell of a Raptor study", ("cell", "asked"))
        if "failed" in cell:
            failed[path.stem] = cell["failed"]
            continue
        curves.append(pd.read_parquet(path.with_suffix(".parquet")).assign(cell=path.stem))
        rows.append(_row(path.stem, cell, curves[-1]))
        newest = max(newest, cell, key=lambda one: one["provenance"]["date"] if one else "")
    accuracy = {
        row["probe"]: row["accuracy"]
        for row in (newest["probing"]["summary"] if newest else ())
        if row["model"] == "teacher"
    }
    return Cells(
        pd.DataFrame(rows).set_index("name") if rows else pd.DataFrame(),
        pd.concat(curves, ignore_index=True) if curves else pd.DataFrame(),
        phases,
        newest.get("size", {}),
        accuracy,
        failed,
        newest.get("provenance", {}),
    )


def _row(name: str, content: dict[str, Any], curves: pd.DataFrame) -> dict[str, Any]:
    cell, settings = content["cell"], content["asked"]["fit"]["settings"]
    table = curves.query("images == 'test' and statistic == 'r2' and group == 'all'")
    r2 = table.set_index(["mode", "layer"])["mean"]
    kept = {row["probe"]: row for row in content["probing"]["ratios"]}
    steps = settings["stage1_steps"] + settings["stage2_steps"]
    seeded = set(cell["changes"]) == {"seed"}
    varies = "seed" if seeded else "recipe" if cell["changes"] else "partition"
    return {
        "name": name,
        "k": cell["k"],
        "partition": cell["partition"],
        "draw": cell["draw"],
        "varies": varies,
        "r2": float(r2["autoregressive"].iloc[-1]),
        "r2_least": float(r2["autoregressive"].min()),
        "r2_one_step": float(np.mean(r2["one-step"])),
        "kept": kept["linear"]["ratio"],
        "kept_low": kept["linear"]["low"],
        "kept_high": kept["linear"]["high"],
        "kept_knn": kept["knn"]["ratio"],
        "parameters": content["parameters"] / content["teacher_parameters"],
        "steps": steps,
        "images_seen": steps * settings["batch_size"],
        "seconds": content["fit_seconds"] + content["evaluation_seconds"],
    }
