"""Which file makes a folder the result of which command, and whose folder a run may not write to."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from brdyn.errors import UsageError
from brdyn.store import files, unfinished


class Kind(NamedTuple):
    """A kind of results.

    Attributes
    ----------
    writer : str
        The command, or the function, that writes it.
    reader : str or None
        The class that reads it back, `module:class`, where there is one.
    """

    writer: str
    reader: str | None = None


TRAIN_RESULT, GRID_RESULT = "train.json", "grid.json"
KINDS = {
    "phases.json": Kind("brdyn phases", "brdyn.phases:Phases"),
    "similarity.json": Kind("brdyn.layer_similarity", "brdyn.phases:LayerSimilarity"),
    "dynamics.json": Kind("brdyn dynamics", "brdyn.measures.dynamics:Dynamics"),
    "perturb.json": Kind("brdyn perturb", "brdyn.interventions:Repair"),
    "interventions.json": Kind("brdyn interventions", "brdyn.interventions:Surgery"),
    "splice.json": Kind("brdyn splice", "brdyn.interventions:Splice"),
    "probe.json": Kind("brdyn probe", "brdyn.probes:Probing"),
    "layer_probe.json": Kind("brdyn probe --task or --layers", "brdyn.probes:LayerProbe"),
    "fit.json": Kind("brdyn raptor-fit", "brdyn.raptor:Fit"),
    "raptor_eval.json": Kind("brdyn raptor-eval", "brdyn.raptor:Evaluation"),
    "raptor_rank.json": Kind("brdyn raptor-rank", "brdyn.raptor:RankCurve"),
    TRAIN_RESULT: Kind("brdyn vit-train or vitrm-train", "brdyn.classifiers:ClassifierTraining"),
    "vitrm_eval.json": Kind("brdyn vitrm-eval", "brdyn.classifiers:ClassifierEvaluation"),
    "report.json": Kind("brdyn report", "brdyn.reporting:Report"),
    "compare.json": Kind("brdyn compare"),
    GRID_RESULT: Kind("brdyn vitrm-train --grid", "brdyn.classifiers:Grid"),
}
PICTURES = ("png", "svg", "pdf")
WRITTEN = (*(f".{kind}" for kind in PICTURES), ".json", ".parquet", ".safetensors")  # all that results are made of
LARGEST = 64 * 2**20  # of the JSON file of a result, by far
NEEDED = (".parquet", ".safetensors")
MODEL = ("config.json", "model.safetensors")


def check_own(folder: Path, result: str) -> None:
    """Refuse a folder that holds, or is about to hold, anything but this result: it would lie in between, or be lost.

    Parameters
    ----------
    folder : path
        It may be missing.
    result : str
        The JSON file that the run will write, one of `KINDS`.

    Raises
    ------
    UsageError
        If there is the result of another command, an unfinished run of one, or a model that is nobody's result.
    """
    remedy = f"{KINDS[result].writer} writes to a folder of its own; choose another `out`"
    others = [name for name in KINDS if name != result and _is_there(folder / name)]
    if others:
        raise UsageError(f"{str(folder)!r} holds the result of {KINDS[others[0]].writer} ({others[0]}); {remedy}")
    begun = read_plain(folder / unfinished.MARKER)
    of = begun.get("result")
    if isinstance(of, str) and of in KINDS and of != result:
        raise UsageError(f"{str(folder)!r} holds an unfinished run of {KINDS[of].writer}; {remedy}")
    if begun or _is_there(folder / result):
        return
    model = [name for name in MODEL if (folder / name).exists()]
    if model:
        raise UsageError(f"{str(folder)!r} holds a model ({', '.join(model)}); {remedy}")


def _is_there(path: Path) -> bool:
    """Also as what a killed run has set aside."""
    return path.is_file() or files.aside(path).is_file()


def named_in(content: Mapping[str, Any]) -> list[str]:
    """The files that the content of a result's JSON file names; none where it is something else."""
    named = content.get("files", [])
    return [str(name) for name in named] if isinstance(named, list) else []


def files_of(folder: Path, result: str) -> set[str]:
    """The files of a result that are there, by its JSON file, also by one that a killed run has set aside."""
    found: set[str] = set()
    for path in (folder / result, files.aside(folder / result)):
        found |= {*named_in(read_plain(path))}
    return {
        file for file in found if Path(file).name == file and Path(file).suffix in WRITTEN and (folder / file).is_file()
    }


def files_of_results(folder: Path, names: Collection[str]) -> set[str]:
    """All files of the results in a folder that holds files of these names: each result names itself among its own.

    >>> from pathlib import Path
    >>> from brdyn.store.result_files import files_of_results
    >>> phases.save("runs/named")
    >>> sorted(files_of_results(Path("runs/named"), ["phases.json"]))
    ['phases.json']
    """
    results = [name for name in KINDS if name in names or files.aside(Path(name)).name in names]
    results = [name for name in results if not _is_large(folder / name)]
    found = {name: files_of(folder, name) for name in results}
    return {file for name, own in found.items() for file in own if name in own or name not in names}


def _is_large(path: Path) -> bool:
    """Whether this is somebody's: the annotations of a data set, say, in a `train.json`."""
    return path.is_file() and path.stat().st_size > LARGEST


def missing(path: Path, content: Mapping[str, Any]) -> list[str]:
    """The files that the content of a result's JSON file names and that are not there, but for pictures.

    Without these it is not whole; pictures are drawn again.
    """
    return [name for name in named_in(content) if name.endswith(NEEDED) and not (path.parent / name).is_file()]


def read_plain(path: Path) -> dict[str, Any]:
    """The object in a JSON file of brdyn's own; empty where it is missing or something else."""
    with suppress(OSError, ValueError, RecursionError):
        content = json.loads(path.read_bytes())
        return content if isinstance(content, dict) else {}
    return {}
