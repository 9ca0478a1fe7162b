"""Surgery on depth: swap, delete, replace, shuffle, and what it does to the final representation. Method notes, 6.

Each operation is an order in which the blocks are applied. It is run from the first step that differs, on the clean
states of the same batch. What is read out is the final representation after the norm: cls, and the mean patch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, pairwise, permutations
from math import factorial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from brdyn.data import ImageSet
from brdyn.errors import UsageError
from brdyn.interventions.contexts import replaced, shuffled, swapped
from brdyn.interventions.repair import STATISTICS, angles_to
from brdyn.interventions.within_across import WithinAcross, straddling_windows, within_against_across
from brdyn.measures.engine import metric_device
from brdyn.measures.kinematics import TINY
from brdyn.measures.moments import RunningMoments
from brdyn.models import VisionTransformer
from brdyn.phases import Phases
from brdyn.results import read_json
from brdyn.runtime import Processes
from brdyn.trajectory import Trajectory, trajectories

KINDS = ("swap", "delete", "shuffle", "replace")
DRAWS = 5
REPRESENTATION = ("relative_error", "angle")
PREDICTION = ("agreement", "accuracy")
AS_TEXT = ("layers", "order")


@dataclass(frozen=True)
class Operation:
    """One change of depth.

    Attributes
    ----------
    kind : {"swap", "delete", "replace", "shuffle_within", "shuffle_across"}
    layers : tuple of int
        The layers swapped, deleted or shuffled; for a replacement the layer and what replaces it.
    phase : int
        For shuffles: the phase that is shuffled, or whose size the window across a boundary has. Else 0.
    order : tuple of int
        The layer applied at each step.
    """

    kind: str
    layers: tuple[int, ...]
    phase: int
    order: tuple[int, ...]


@dataclass(frozen=True)
class Surgery:
    """What each operation did.

    Attributes
    ----------
    table : DataFrame
        One row per operation, `readout` (`cls`, `patches`, or `head` for predictions) and `measure`:
        `relative_error` (norm of the change over that of the clean readout), `angle` (radians), and where the model
        has a classification head `agreement` (share of images with the prediction of the intact model) and `accuracy`.
        Mean over images, its 95 % interval, `sd`, `n_images`.
    intact_accuracy : float or None
    layers : int
        L.
    phases : Phases
    tests : dict of str to WithinAcross or None
        For swaps, by readout: relative error within phases against across.
    notes : tuple of str
        What could not be measured, and why.
    """

    table: pd.DataFrame
    intact_accuracy: float | None
    layers: int
    phases: Phases
    tests: Mapping[str, WithinAcross | None] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @classmethod
    def read(cls, folder: str | Path) -> Surgery:
        """What `brdyn interventions` wrote to a folder.

        Raises
        ------
        UsageError
            If there is no such result.
        """
        content = read_json(Path(folder) / "interventions.json", "a result of brdyn interventions")
        table = pd.DataFrame(content["table"]).astype(dict.fromkeys(STATISTICS[:-1], float))
        for name in AS_TEXT:
            table[name] = [tuple(map(int, text.split(","))) for text in table[name]]
        tests = {
            readout: WithinAcross(**test) if test else None for readout, test in content["swap_tests"].items()
        }
        phases = Phases.from_dict(content["phases"])
        return cls(table, content["intact_accuracy"], phases.layers, phases, tests, tuple(content["notes"]))

    def tidy(self) -> pd.DataFrame:
        """The table with the layers of an operation, and the order it makes, as text: `3,5`."""
        written = {name: self.table[name].map(lambda layers: ",".join(map(str, layers))) for name in AS_TEXT}
        return self.table.assign(**written)

    @property
    def readouts(self) -> list[str]:
        """The readouts of the representation."""
        rows = self.table[self.table["measure"] == "relative_error"]
        return list(dict.fromkeys(rows["readout"]))

    def rows(self, kind: str, readout: str, measure: str = "relative_error") -> pd.DataFrame:
        """Rows of one kind of operation."""
        return self.table.query("kind == @kind and readout == @readout and measure == @measure")

    def matrix(self, kind: str, readout: str, measure: str = "relative_error") -> np.ndarray:
        """Mean of a measure over pairs of layers, `(L, L)`: swaps, or replacements of a row's layer by a column's.

        The diagonal, where nothing is changed, is 0, or the intact model's value for predictions.
        """
        intact = {"agreement": 1.0, "accuracy": self.intact_accuracy}.get(measure, 0.0)
        found = np.full((self.layers, self.layers), np.nan)
        np.fill_diagonal(found, np.nan if intact is None else intact)
        rows = self.rows(kind, readout, measure)
        for (first, second), mean in zip(rows["layers"], rows["mean"], strict=True):
            found[first - 1, second - 1] = mean
            if kind == "swap":
                found[second - 1, first - 1] = mean
        return found


def operations(
    kinds: Sequence[str], depth: int, boundaries: Sequence[int], draws: int = DRAWS, seed: int = 0
) -> Iterator[Operation]:
    """All swaps, deletions and replacements, and `draws` shuffles of each phase and of windows across boundaries."""
    layers = range(1, depth + 1)
    if "swap" in kinds:
        for pair in combinations(layers, 2):
            yield Operation("swap", pair, 0, tuple(swapped(depth, *pair)))
    if "delete" in kinds and depth > 1:
        for layer in layers:
            yield Operation("delete", (layer,), 0, tuple(other for other in layers if other != layer))
    if "replace" in kinds:
        for pair in permutations(layers, 2):
            yield Operation("replace", pair, 0, tuple(replaced(depth, *pair)))
    if "shuffle" in kinds:
        rng = np.random.default_rng(seed)
        for phase, (start, end) in enumerate(pairwise([0, *boundaries, depth]), 1):
            size = end - start
            if size < 2:
                continue
            yield from _shuffles(
                "shuffle_within", [tuple(range(start + 1, end + 1))], phase, depth, draws, rng
            )
            windows = straddling_windows(boundaries, depth, size)
            yield from _shuffles("shuffle_across", windows, phase, depth, draws, rng)


def _shuffles(
    kind: str,
    windows: Sequence[tuple[int, ...]],
    phase: int,
    depth: int,
    draws: int,
    rng: np.random.Generator,
) -> Iterator[Operation]:
    """Different random orders of the layers of some windows."""
    seen: set[tuple[int, ...]] = set()
    possible = sum(factorial(len(window)) - 1 for window in windows)
    while windows and len(seen) < min(draws, possible):
        window = windows[int(rng.integers(len(windows)))]
        order = tuple(shuffled(depth, window, int(rng.integers(2**32))))
        if order not in seen:
            seen.add(order)
            yield Operation(kind, window, phase, order)


class SurgeryRun:
    """Runs the operations on batches and sums what they do.

    Parameters
    ----------
    model : VisionTransformer
    chosen : sequence of Operation
    """

    def __init__(self, model: VisionTransformer, chosen: Sequence[Operation]) -> None:
        self.model, self.chosen = model, list(chosen)
        self.groups = {
            name: model.tokens[name] for name in ("cls", "patches") if name in model.tokens
        }  # the readouts of the representation
        device = metric_device(model)
        self.representation = RunningMoments((len(self.chosen), len(self.groups), len(REPRESENTATION))).to(
            device
        )
        self.prediction = RunningMoments((len(self.chosen), len(PREDICTION))).to(device)
        self.intact = RunningMoments((1,)).to(device)
        self.foreign_labels = 0

    @torch.no_grad()
    def update(self, trajectory: Trajectory) -> None:
        """Add the images of a clean trajectory."""
        clean = self.model.norm(trajectory.states[-1])
        readout = self._read(clean)
        predicted = self._predict(clean)
        labels = self._labels(trajectory, predicted)
        if labels is not None and predicted is not None:
            self.intact.update(predicted.eq(labels)[:, None].double())
        changes, right = [], []
        for operation in self.chosen:
            final = self.model.norm(run_order(self.model, trajectory, operation.order))
            changed = self._read(final)
            error = (changed - readout).norm(dim=-1) / readout.norm(dim=-1).clamp_min(TINY)
            changes.append(torch.stack([error, angles_to(changed, readout)], dim=-1))
            guesses = self._predict(final)
            if guesses is not None and predicted is not None:
                agreement = guesses.eq(predicted).double()
                accuracy = guesses.eq(labels).double() if labels is not None else agreement * torch.nan
                right.append(torch.stack([agreement, accuracy], dim=-1))
        self.representation.update(torch.stack(changes, dim=1))
        if right:
            self.prediction.update(torch.stack(right, dim=1))

    def _read(self, normed: Tensor) -> Tensor:
        """Mean token of each readout, `(B, readouts, D)`, float32."""
        return torch.stack(
            [normed[:, part].mean(1, dtype=torch.float32) for part in self.groups.values()], dim=1
        )

    def _predict(self, normed: Tensor) -> Tensor | None:
        logits = self.model.logits(normed)
        return None if logits is None else logits.argmax(-1)

    def _labels(self, trajectory: Trajectory, predicted: Tensor | None) -> Tensor | None:
        if trajectory.labels is None or predicted is None:
            return None
        labels = trajectory.labels.to(predicted.device)
        if int(labels.max()) >= self.model.classes:
            self.foreign_labels = max(self.foreign_labels, int(labels.max()))
            return None
        return labels

    def table(self) -> pd.DataFrame:
        """One row per operation, readout and measure."""
        found = self.representation.arrays()
        rows = [
            (operation, readout, measure, {name: found[name][index, place, number] for name in STATISTICS})
            for index, operation in enumerate(self.chosen)
            for place, readout in enumerate(self.groups)
            for number, measure in enumerate(REPRESENTATION)
        ]
        guessed = self.prediction.arrays()
        rows += [
            (operation, "head", measure, {name: guessed[name][index, number] for name in STATISTICS})
            for index, operation in enumerate(self.chosen)
            for number, measure in enumerate(PREDICTION)
            if guessed["n_images"][index, number]
        ]
        return pd.DataFrame(
            [
                {
                    "kind": operation.kind,
                    "layers": operation.layers,
                    "phase": operation.phase,
                    "order": operation.order,
                    "readout": readout,
                    "measure": measure,
                    **values,
                }
                for operation, readout, measure, values in rows
            ]
        )


def layer_surgery(
    model: VisionTransformer,
    images: ImageSet,
    phases: Phases,
    *,
    kinds: Sequence[str] = ("swap", "delete", "shuffle"),
    draws: int = DRAWS,
    seed: int = 0,
    **options: Any,
) -> Surgery:
    """Swap all pairs of layers, delete each, shuffle each phase; read out the final representation.

    All pairs of L layers cost about L^2 / 3 forward passes for each image, replacements L^2 / 2.

    Parameters
    ----------
    model : VisionTransformer
    images : ImageSet
    phases : Phases
    kinds : sequence of str
        Which of `swap`, `delete`, `shuffle`, `replace`.
    draws : int
        Shuffles of each phase, and of windows of its size that cross a boundary, at most.
    seed : int
        Of the shuffles and of the permutation tests.
    **options
        Of :func:`brdyn.trajectory.trajectories`.

    Returns
    -------
    Surgery

    Raises
    ------
    UsageError
        If a kind is unknown, or the model's depth allows no operation of these kinds.
    """
    check_kinds(kinds)
    if draws < 1:
        raise UsageError(f"{draws} shuffles of each phase are none; draw at least 1")
    chosen = list(operations(kinds, model.depth, phases.boundaries, draws, seed))
    if not chosen:
        raise UsageError(
            f"the {model.depth} layer(s) of {model.info.name!r} in phases {list(phases.intervals)} allow no "
            f"{' or '.join(kinds)}"
        )
    run = SurgeryRun(model, chosen)
    processes = options.get("processes") or Processes(model.device)
    for trajectory in trajectories(model, images, **options):
        run.update(trajectory)
        del trajectory  # before the next batch is captured
    images.report = processes.gather(images.report)
    images.require_some()
    intact = run.intact.arrays()
    found = Surgery(
        table=run.table(),
        intact_accuracy=float(intact["mean"][0]) if intact["n_images"][0] else None,
        layers=model.depth,
        phases=phases,
        notes=_notes(run, int(intact["n_images"][0])),
    )
    if "swap" not in kinds:
        return found
    tests = {
        readout: within_against_across(found.matrix("swap", readout), phases.boundaries, seed)
        for readout in found.readouts
    }
    return Surgery(found.table, found.intact_accuracy, found.layers, phases, tests, found.notes)


def check_kinds(kinds: Sequence[str]) -> None:
    """Refuse a kind that there is not, or none."""
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown or not kinds:
        raise UsageError(
            f"unknown intervention {unknown[0] if unknown else ''!r}; choose from {', '.join(KINDS)}"
        )


def run_order(model: VisionTransformer, trajectory: Trajectory, order: Sequence[int]) -> Tensor:
    """The final state `(B, N, D)` when blocks are applied in this order.

    Starts from the clean state at which the order begins to differ from the true one.
    """
    same = next((step for step, layer in enumerate(order) if layer != step + 1), len(order))
    state = trajectory.states[same]
    for layer in order[same:]:
        state = model.blocks[layer - 1](state)
    return state


def _notes(run: SurgeryRun, labelled: int) -> tuple[str, ...]:
    if not run.model.classes:
        return ("no accuracy: the model has no classification head",)
    if run.foreign_labels:
        return (
            f"no accuracy: the images have a class {run.foreign_labels} and the head {run.model.classes} classes",
        )
    if not labelled:
        return ("no accuracy: the images have no labels",)
    return ()
