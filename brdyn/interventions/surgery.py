"""Surgery on depth: swap, delete, replace, shuffle, and what it does to the final representation. Method notes, 6.

Each operation is an order in which the blocks are applied. It is run from the first step that differs, on the clean
states of the same batch. What is read out is the final representation after the norm: cls, and the mean patch.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import NoReturn

import pandas as pd
import torch
from torch import Tensor
from torchmetrics import MaxMetric

from brdyn.arguments import checked
from brdyn.choices import DRAWS, KINDS, SURGERY, some_of
from brdyn.data import NO_LABEL, ImageSet
from brdyn.errors import BrdynError, UsageError
from brdyn.interventions.operations import Operation, operations
from brdyn.interventions.repair import angles_to
from brdyn.interventions.repair_result import STATISTICS
from brdyn.interventions.surgery_result import Surgery
from brdyn.interventions.within_across import within_against_across
from brdyn.measures.engine import metric_device
from brdyn.measures.found_phases import find_phases
from brdyn.measures.kinematics import TINY
from brdyn.measures.moments import RunningMoments
from brdyn.models import VisionTransformer
from brdyn.phases import Phases
from brdyn.progress import within
from brdyn.provenance import Provenance, Stopwatch
from brdyn.seeds import check_seed
from brdyn.trajectory import Stream, Trajectory, check_normed, not_finite_remedy, visit_trajectories
from brdyn.words import counted

REPRESENTATION = ("relative_error", "angle")
PREDICTION = ("agreement", "accuracy")


class SurgeryRun:
    """Runs the operations on batches and sums what they do.

    Parameters
    ----------
    model : VisionTransformer
    chosen : sequence of Operation
    with_accuracy : bool
        Take the images' labels for classes of the model's head, if it has one.
    """

    def __init__(self, model: VisionTransformer, chosen: Sequence[Operation], with_accuracy: bool = True) -> None:
        self.model, self.chosen, self.with_accuracy = model, list(chosen), with_accuracy
        self.groups = {name: model.tokens[name] for name in model.tokens.readouts}  # the readouts of the representation
        device = metric_device(model)
        self.representation = RunningMoments((len(self.chosen), len(self.groups), len(REPRESENTATION))).to(device)
        self.prediction = RunningMoments((len(self.chosen), len(PREDICTION)), shares=True).to(device)
        self.intact = RunningMoments((1,)).to(device)
        self.largest_label = MaxMetric(nan_strategy="ignore").to(device)

    @torch.no_grad()
    def update(self, trajectory: Trajectory) -> None:
        """Add the images of a clean trajectory."""
        clean = self.model.norm(trajectory.states[-1])
        readout = self._read(clean)
        predicted = self._predict(clean)
        labels = self._labels(trajectory)
        if predicted is not None:
            self.intact.update(self._right(predicted, labels)[:, None])
        changes, right = [], []
        for number, operation in enumerate(self.chosen):
            within(number, len(self.chosen), len(trajectory))
            final = self.model.norm(run_order(self.model, trajectory, operation.order))
            changed = self._read(final)
            error = (changed - readout).norm(dim=-1) / readout.norm(dim=-1).clamp_min(TINY)
            changes.append(torch.stack([error, angles_to(changed, readout)], dim=-1))
            guesses = self._predict(final)
            if guesses is not None and predicted is not None:
                agreement = guesses.eq(predicted).float()
                right.append(torch.stack([agreement, self._right(guesses, labels)], dim=-1))
        values = torch.stack(changes, dim=1)
        if not values.isfinite().all():
            self._refuse(values, readout)
        self.representation.update(values)
        if right:
            self.prediction.update(torch.stack(right, dim=1))

    def _refuse(self, values: Tensor, readout: Tensor) -> NoReturn:
        """Say what is not finite: the intact readout, or the first operation that makes it so."""
        check_normed(self.model, readout)
        operation = self.chosen[int((~values.isfinite()).flatten(2).any(2).any(0).nonzero()[0])]
        layers = f"layer{'s' if len(operation.layers) > 1 else ''} {', '.join(map(str, operation.layers))}"
        raise BrdynError(
            f"{operation.kind} of {layers} makes states that are not finite in {self.model.precision}; "
            f"{not_finite_remedy(self.model.dtype)}"
        )

    def _read(self, normed: Tensor) -> Tensor:
        """Mean token of each readout, `(B, readouts, D)`, float32."""
        return torch.stack([normed[:, part].mean(1, dtype=torch.float32) for part in self.groups.values()], dim=1)

    def _predict(self, normed: Tensor) -> Tensor | None:
        logits = self.model.logits(normed)
        return None if logits is None else logits.argmax(-1)

    def _right(self, guesses: Tensor, labels: Tensor) -> Tensor:
        """1 where a guess is right, NaN where the image has no label of the head's."""
        return guesses.eq(labels).float().where(labels != NO_LABEL, torch.nan)

    def _labels(self, trajectory: Trajectory) -> Tensor:
        """Labels of the images, where they can be of the head."""
        if not self.with_accuracy:
            return torch.full((len(trajectory),), NO_LABEL, device=self.model.device)
        labels = trajectory.labels.to(self.model.device)
        self.largest_label.update(labels.max().float())
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


@checked
def layer_surgery(
    model: VisionTransformer,
    images: ImageSet,
    phases: Phases | Sequence[int] | None = None,
    *,
    k: int | None = None,
    kinds: Sequence[str] = SURGERY,
    draws: int = DRAWS,
    apart: int | None = None,
    seed: int = 0,
    stream: Stream | None = None,
) -> Surgery:
    """Swap all pairs of layers, delete each, shuffle each phase; read out the final representation.

    All pairs of L layers cost about L^2 / 3 forward passes for each image, replacements L^2 / 2.

    Parameters
    ----------
    model : VisionTransformer
    images : ImageSet
    phases : Phases or sequence of int, optional
        Or their boundaries, as of :func:`brdyn.phases.as_phases`.
        Without them they are found in a pass of their own (cosine of cls and mean patch, `k` phases).
    k : int, optional
        The number of phases.
    kinds : sequence of str
        Which of `swap`, `delete`, `shuffle`, `replace`.
    draws : int
        Shuffles of each phase, and of windows of its size that cross a boundary, at most.
    apart : int, optional
        Swap and replace only layers at most so far apart: with 1 neighbours alone, which cost about L forward passes
        instead of L^2. Swaps are then not tested within against across phases.
    seed : int
        Of the shuffles and of the permutation tests.
    stream : Stream, optional
        How to go through the images.

    Returns
    -------
    Surgery

    Raises
    ------
    UsageError
        If a kind is unknown, or the model's depth allows no operation of these kinds.

    Examples
    --------
    >>> surgery = brdyn.layer_surgery(model, images, phases, kinds=["delete"])
    >>> len(surgery.rows("delete", "cls", "relative_error"))  # a row for each layer
    12
    """
    some_of("intervention", kinds, KINDS)
    seed = check_seed(seed)
    if draws < 1:
        raise UsageError(f"{draws} shuffles of each phase are none; draw at least 1")
    if apart is not None and apart < 1:
        raise UsageError(f"`apart={apart}`: layers are at least 1 apart")
    watch, stream = Stopwatch(), stream or Stream()
    phases = find_phases(model, images, phases, k, seed=seed, stream=stream)
    chosen = list(operations(kinds, model.depth, phases.boundaries, draws, seed, apart))
    if not chosen:
        spans = ", ".join(f"{first}-{last}" if last > first else str(first) for first, last in phases.intervals)
        raise UsageError(
            f"{model.info.name!r} with phases of layers {spans} allows no {' or '.join(kinds)}; "
            + ("a single layer leaves nothing to change" if model.depth == 1 else "use a smaller `k` or other `kinds`")
        )
    names = images.label_names
    run = SurgeryRun(model, chosen, with_accuracy=model.takes_labels(names))
    visit_trajectories(model, images, run.update, stream=stream)
    accuracy, note = _accuracy(run, names)
    table = run.table()
    if accuracy is None:
        table = table[table["measure"] != "accuracy"].reset_index(drop=True)
    asked = {"kinds": list(kinds), "draws": draws, "apart": apart}
    origin = Provenance.of(model, images, watch, stream.processes, seed=seed, **asked)
    found = Surgery(table, accuracy, model.depth, phases, notes=(note,) if note else (), provenance=origin)
    if "swap" not in kinds:
        return found
    tests = {
        readout: within_against_across(found.matrix("swap", readout), phases.boundaries, seed)
        for readout in found.readouts
    }
    return replace(found, tests=tests)


def run_order(model: VisionTransformer, trajectory: Trajectory, order: Sequence[int]) -> Tensor:
    """The final state `(B, N, D)` when blocks are applied in this order.

    Starts from the clean state at which the order begins to differ from the true one.
    """
    same = next((step for step, layer in enumerate(order) if layer != step + 1), len(order))
    state = trajectory.states[same]
    for layer in order[same:]:
        state = model.blocks[layer - 1](state)
    return state


def _accuracy(run: SurgeryRun, names: Sequence[str] | None) -> tuple[float | None, str]:
    """Accuracy of the intact model, or why there is none."""
    classes = run.model.classes
    if not classes:
        return None, "no accuracy: the model has no classification head"
    if not run.with_accuracy:
        number = len(names or ())
        other = "named otherwise than the head's" if number == classes else f"and the head of {classes}"
        return None, f"no accuracy: the images are of {counted(number, 'class')} {other}"
    intact = run.intact.arrays()
    with warnings.catch_warnings():  # of torchmetrics, when there was no label
        warnings.filterwarnings("ignore", message="The ``compute`` method of metric")
        largest = float(run.largest_label.compute())
    if not intact["n_images"][0]:
        return None, "no accuracy: the images have no labels"
    if largest >= classes:
        return None, f"no accuracy: the images have a class {largest:.0f} and the head {classes} classes"
    return float(intact["mean"][0]), ""
