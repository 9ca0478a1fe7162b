"""What is recorded of the Raptors of one teacher, fit by fit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analyses.recording import OFFLINE, RESULTS
from analyses.statistics import Estimate
from analyses.study import packed, read_all, recorded_size, unpacked
from brdyn import Phases
from brdyn.probes import Reading
from brdyn.provenance import images_of
from brdyn.raptor.baselines import BASELINES
from brdyn.raptor.fidelity import Fidelity
from brdyn.store import read_json

RAPTOR = RESULTS / "raptor"
LARGEST_FIRST = ("gpu", "long", "cpu")
PHASES, TEACHER = "phases.json", "teacher.json"
LINEAR, HEAD = "linear", "head"


def answers(reading: Reading) -> dict[str, Any]:
    """Which test images each probe names right, so that fits can be compared image by image."""
    right = {kind: [packed(row.numpy()) for row in hits] for kind, hits in reading.hits.items()}
    return {"test_images": len(reading.truth), "right": right}


def right_of(content: Mapping[str, Any], kind: str) -> np.ndarray:
    """Back from :func:`answers`: `(seeds, images)`."""
    return np.array([unpacked(row, content["test_images"]) for row in content["right"][kind]])


class Cells(NamedTuple):
    """A recorded study.

    `summary` has a row per cell, by name: `varies` is `partition`, `seed`, `recipe`, or `fast` for that recipe; `r2`
    of all tokens at the last layer (autoregressive), `r2_least` over the layers, `r2_one_step` (mean over layers);
    `kept` of a linear probe's accuracy with its interval, `kept_knn`, and `kept_head` of the teacher's own head where
    it has one, with its interval; `skill` over the best baseline, with its interval; `parameters` over the teacher's.
    `fidelity`: all curves, as :class:`brdyn.raptor.fidelity.Fidelity` has them, with `cell` and `images` (`test`,
    `photos`). `phases` by max-cut, `teacher`: its accuracy by probe; `size`, `provenance`: of the newest cell.
    `right`: by probe and cell, the share of probes of that kind that name a test image right, `(images,)`; cells of
    earlier versions have none. `model`: the teacher, by the name that its records have.
    """

    summary: pd.DataFrame
    fidelity: pd.DataFrame
    phases: Phases
    size: dict[str, Any]
    teacher: dict[str, float]
    failed: dict[str, str]
    provenance: dict[str, Any]
    right: dict[str, dict[str, np.ndarray]]
    model: str = ""

    def heading(self, what: str = "", images: str = "test", fits: pd.DataFrame | None = None) -> str:
        """Of a picture of several fits (all by default): how long they are, and which images they are measured on."""
        teacher = self.provenance["teacher"]
        size = [self.size["photo_size"]] * 2 if images == "photos" else teacher["image_size"]
        measured = self.fidelity.loc[self.fidelity["images"] == images, "n_images"].max()
        seen = (self.summary if fits is None else fits)["images_seen"]
        lengths = " to ".join(f"{length:,}" for length in sorted({seen.min(), seen.max()}))
        of = ", ".join(filter(None, (f"Raptors of {self.model or teacher['name']}", what, f"fits of {lengths} images")))
        return f"{of}\nmeasured on {images_of(int(measured), size)}"

    def probed_heading(self, what: str = "", fits: pd.DataFrame | None = None) -> str:
        """That of a picture which shows what probes keep, too."""
        return f"{self.heading(what, fits=fits)}, probes on {max(map(len, self.right[LINEAR].values())):,}"


def read_cells(size: str | None = None, model: str = OFFLINE, folder: Path = RAPTOR) -> Cells:
    """Every cell of a study: the one named, or the largest that has its main fits (max-cut, k = 2 to 4). Raises
    UsageError if there is none."""
    place, main = folder / model.replace("/", "--"), (f"maxcut_k{k}.json" for k in (2, 3, 4))
    home = place / (size or recorded_size(place, LARGEST_FIRST, *main) or LARGEST_FIRST[0])
    phases = Phases.from_dict(read_json(home / PHASES, "the phases of a Raptor study"))
    names = (path.stem for path in sorted(home.glob("*.json")) if path.name not in (PHASES, TEACHER))
    done, failed, newest = read_all(home, names, "cell", "asked")
    curves = {name: pd.read_parquet(home / f"{name}.parquet") for name in done}
    last: dict[str, Any] = max(done.values(), key=lambda one: one["provenance"]["date"], default={})
    probed = last["probing"]["summary"] if last else []
    summary = pd.DataFrame([_row(name, content, curves[name]) for name, content in done.items()])
    fidelity = [table.assign(cell=name) for name, table in curves.items()]
    right: dict[str, dict[str, np.ndarray]] = {}
    for name, content in done.items():
        for kind in content.get("right", {}):
            right.setdefault(kind, {})[name] = right_of(content, kind).mean(0)
    return Cells(
        summary.set_index("name") if done else summary,
        pd.concat(fidelity, ignore_index=True) if done else pd.DataFrame(),
        phases, last.get("size", {}), {row["probe"]: row["accuracy"] for row in probed if row["model"] == "teacher"},
        failed, newest, right, model,
    )  # fmt: skip


def least_skill(table: pd.DataFrame) -> Estimate:
    """Over the best of the baselines, of all tokens at the last layer, autoregressive, from the table of a
    :class:`brdyn.raptor.fidelity.Fidelity`; not a number where there is none."""
    rows = table[table["statistic"].isin([f"skill_{name}" for name in BASELINES])]
    rows = rows.query("mode == 'autoregressive' and group == 'all'")
    last = rows[rows["layer"] == rows["layer"].max()].dropna(subset="mean")
    if last.empty:
        return Estimate(np.nan)
    return Estimate(*map(float, last.loc[last["mean"].idxmin(), ["mean", "low", "high"]]))


def came_to(found: Fidelity) -> dict[str, float | None]:
    """What one fit is judged by: R² of the last layer, the mean one-step R², skill over the best baseline, and which
    share of the accuracy of its teacher's own head is kept, where that has one that names these images."""
    right, whole = found.accuracy, found.teacher_accuracy
    return {
        "r2": float(found.curve("r2").iloc[-1]), "r2_one_step": float(found.curve("r2", mode="one-step").mean()),
        "skill": least_skill(found.table).value, "kept": right / whole if right is not None and whole else None,
    }  # fmt: skip


def varies(changed: set[str]) -> str:
    """What a fit differs in from the published recipe on max-cut phases, by the options that it changes."""
    if changed <= {"seed"}:
        return "seed" if changed else "partition"
    return "fast" if "recipe" in changed <= {"recipe", "seed"} else "recipe"


def _row(name: str, content: Mapping[str, Any], curves: pd.DataFrame) -> dict[str, Any]:
    cell, settings = content["cell"], content["asked"]["fit"]["settings"]
    table = curves.query("images == 'test' and statistic == 'r2' and group == 'all'")
    r2 = table.set_index(["mode", "layer"])["mean"]
    probed = {row["probe"]: row for row in content["probing"]["ratios"]}
    steps = settings["stage1_steps"] + settings["stage2_steps"]
    skill = least_skill(curves[curves["images"] == "test"])
    kept = {
        f"{column}{end}": probed.get(probe, {}).get(key, np.nan)
        for column, probe in (("kept", LINEAR), ("kept_head", HEAD))
        for end, key in (("", "ratio"), ("_low", "low"), ("_high", "high"))
    }
    return {
        "name": name, "k": cell["k"], "partition": cell["partition"], "draw": cell["draw"],
        "varies": varies(set(cell["changes"])),
        "r2": float(r2["autoregressive"].iloc[-1]), "r2_least": float(r2["autoregressive"].min()),
        "r2_one_step": float(np.mean(r2["one-step"])), "r2_one_step_last": float(r2["one-step"].iloc[-1]),
        **kept, "kept_knn": probed["knn"]["ratio"],
        "skill": skill.value, "skill_low": skill.low, "skill_high": skill.high,
        "parameters": content["parameters"] / content["teacher_parameters"], "steps": steps,
        "images_seen": steps * settings["batch_size"],
        "seconds": content["fit_seconds"] + content["evaluation_seconds"],
    }  # fmt: skip
