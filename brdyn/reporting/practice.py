"""What a user of a model can do with a report: which layers to read, to delete or to share, and what that costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from brdyn.interventions import Surgery
from brdyn.phases import Phases
from brdyn.probes import LayerProbe
from brdyn.probes.layer_choice import PHASE_ENDS, REGULAR, alternatives
from brdyn.reporting.reading import said, words_of
from brdyn.reporting.speed import Speed
from brdyn.words import counted

SHOWN = 4
MEASURES = {"relative_error": "change of {}", "agreement": "same class", "accuracy": "accuracy"}


@dataclass(frozen=True)
class Measured:
    """A number with its 95 % interval, and its heading.

    Attributes
    ----------
    what : str
    mean, low, high : float or None
    """

    what: str
    mean: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Change:
    """A block that is left out, or does the work of another, and what that costs.

    Attributes
    ----------
    kind : {"delete", "replace"}
    layers : tuple of int
        The block; for a replacement the block and what stands in for it.
    costs : tuple of Measured
    saved : float
        Share of the time of a forward pass for a deletion, of the parameters of the blocks for a replacement.
    """

    kind: str
    layers: tuple[int, ...]
    costs: tuple[Measured, ...]
    saved: float

    @property
    def words(self) -> str:
        """Which block."""
        if self.kind == "delete":
            return f"without block {self.layers[0]}"
        return f"block {self.layers[1]} also in the place of {self.layers[0]}"


def changes(surgery: Surgery, speed: Speed | None) -> list[Change]:
    """The deletions and replacements that change the representation least, of each kind a few."""
    found = []
    for kind in ("delete", "replace"):
        rows = surgery.rows(kind, surgery.readouts[-1]).sort_values("mean")
        if kind == "replace":  # of each block the best stand-in
            rows = rows[~rows["layers"].map(lambda layers: layers[0]).duplicated()]
        for layers in list(rows["layers"])[:SHOWN]:
            share = 1 / surgery.layers
            if kind == "delete":
                share = speed.blocks[layers[0] - 1] if speed is not None else share
            found.append(Change(kind, tuple(layers), tuple(_costs(surgery, kind, layers)), share))
    return found


def _costs(surgery: Surgery, kind: str, layers: tuple[int, ...]) -> list[Measured]:
    """What an operation does to each readout, and to predictions where there is a head."""
    table = surgery.table
    rows = table[(table["kind"] == kind) & (table["layers"].map(tuple) == tuple(layers))]
    return [
        Measured(MEASURES[row["measure"]].format(row["readout"]), *_plain(row))
        for _, row in rows.iterrows()
        if row["measure"] in MEASURES
    ]


def _plain(row: pd.Series) -> list[float | None]:
    """Mean and interval; that of a share within 0 and 1."""
    most = np.inf if row["measure"] == "relative_error" else 1.0
    values = [float(np.clip(row[name], 0.0, most)) for name in ("mean", "low", "high")]
    return [value if np.isfinite(value) else None for value in values]


def reading(phases: Phases, probe: LayerProbe | None, why: str) -> str:
    """Which layers to read: by a probe, or, where there is none, which they would be and why there is none."""
    if probe is not None:
        return said(probe, phases)
    ends = [last for _, last in phases.intervals]
    spaced = alternatives(phases.layers, len(ends), None)[REGULAR]
    return (
        f"{words_of(PHASE_ENDS, phases)} are {_listed(ends)}, at regular spacing {_listed(spaced)}; which are worth "
        f"more was not measured: {why}"
    )


def advice(
    results: Mapping[str, object], found: list[Change], speed: Speed | None, unread: str = ""
) -> list[str]:
    """What one can do, in sentences.

    Parameters
    ----------
    results : mapping of str to Result
        Of one model, by section.
    found : list of Change
    speed : Speed or None
    unread : str
        Why no probe was fitted, where none was.
    """
    phases, probe, surgery = (results.get(name) for name in ("phases", "probe", "interventions"))
    lines = []
    if isinstance(phases, Phases):
        probed = probe if isinstance(probe, LayerProbe) else None
        lines.append(f"To read features: {reading(phases, probed, unread)}.")
    if isinstance(surgery, Surgery):
        n_images = int(surgery.table["n_images"].max())
        for kind, opening in (("delete", "To delete"), ("replace", "To share")):
            best = next((one for one in found if one.kind == kind), None)
            if best is not None:
                lines.append(
                    f"{opening}: {_said(best)} ({counted(n_images, 'image')}, nothing is trained again)."
                )
        lines += [f"{note}." for note in surgery.notes]
    if speed is not None:
        fastest, slowest = min(speed.blocks), max(speed.blocks)
        lines.append(
            f"Speed: a block takes {fastest:.1%} to {slowest:.1%} of a forward pass here, so that without one "
            f"it is {1 / (1 - slowest) - 1:.1%} faster at most; shared blocks save parameters and no time "
            f"(measured, {speed.images_per_second:.3g} images/s in batches of {speed.batch_size})."
        )
    return lines


def _said(change: Change) -> str:
    costs = ", ".join(
        f"{one.what} {one.mean:.2f}" + (f" [{one.low:.2f}, {one.high:.2f}]" if one.low is not None else "")
        for one in change.costs
        if one.mean is not None
    )
    of = "of the time" if change.kind == "delete" else "of the blocks' parameters"
    return f"{change.words} costs least: {costs}; saves {change.saved:.1%} {of}"


def _listed(layers: Sequence[int]) -> str:
    return ", ".join(map(str, layers))
