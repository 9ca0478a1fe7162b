"""Which file makes a folder the result of which command, and whose folder a run may not write to."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from brdyn import store
from brdyn.errors import UsageError
from brdyn.training import unfinished

TRAIN_RESULT, GRID_RESULT = "train.json", "grid.json"
COMMANDS = {
    "phases.json": "brdyn phases",
    "dynamics.json": "brdyn dynamics",
    "interventions.json": "brdyn interventions",
    "perturb.json": "brdyn perturb",
    "probe.json": "brdyn probe",
    "fit.json": "brdyn raptor-fit",
    "raptor_eval.json": "brdyn raptor-eval",
    TRAIN_RESULT: "brdyn vit-train or vitrm-train",
    "vitrm_eval.json": "brdyn vitrm-eval",
    GRID_RESULT: "brdyn vitrm-train --grid",
}
MODEL = ("config.json", "model.safetensors")


def check_own(folder: Path, result: str) -> None:
    """Refuse a folder that holds, or is about to hold, anything but this result: it would lie in between, or be lost.

    Parameters
    ----------
    folder : path
        It may be missing.
    result : str
        The JSON file that the run will write, one of `COMMANDS`.

    Raises
    ------
    UsageError
        If there is the result of another command, an unfinished run of one, or a model that is nobody's result.
    """
    remedy = f"{COMMANDS[result]} writes to a folder of its own; choose another `out`"
    others = [name for name in COMMANDS if name != result and _is_there(folder / name)]
    if others:
        raise UsageError(f"{str(folder)!r} holds the result of {COMMANDS[others[0]]} ({others[0]}); {remedy}")
    begun = read_plain(folder / unfinished.MARKER)
    of = begun.get("result")
    if isinstance(of, str) and of in COMMANDS and of != result:
        raise UsageError(f"{str(folder)!r} holds an unfinished run of {COMMANDS[of]}; {remedy}")
    if begun or _is_there(folder / result):
        return
    model = [name for name in MODEL if (folder / name).exists()]
    if model:
        raise UsageError(f"{str(folder)!r} holds a model ({', '.join(model)}); {remedy}")


def _is_there(path: Path) -> bool:
    """Also as what a killed run has set aside."""
    return path.is_file() or store.aside(path).is_file()


def read_plain(path: Path) -> dict[str, Any]:
    """The object in a JSON file of brdyn's own; empty where it is missing or something else."""
    with suppress(OSError, ValueError, RecursionError):
        content = json.loads(path.read_bytes())
        return content if isinstance(content, dict) else {}
    return {}
