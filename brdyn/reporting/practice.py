"""What a user of a model can do with a report: which layers to read, to delete or to share, and what that costs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from brdyn.interventions import Splice, Surgery
from brdyn.interventions.splice_cells import EXCHANGE
from brdyn.interventions.splice_sums import AGREEMENT, ALL, HEAD, R2, SKILL
from brdyn.phases import Phases
from brdyn.probes import LayerProbe
from brdyn.probes.layer_choice import PHASE_ENDS, REGULAR, alternatives
from brdyn.reporting.found import Found
from brdyn.reporting.reading import said, words_of
from brdyn.reporting.speed import Speed
from brdyn.words import counted

SHOWN = 4
MEASURES = {"relative_error": "change of {}", "agreement": "same class", "accuracy": "accuracy"}
LIMITS = {"relative_error": (0.0, np.inf), SKILL: (0.0, np.inf), R2: (-np.inf, 1.0)}
SHARED = {R2: "R²", AGREEMENT: "same class", SKILL: "error over that without the block"}


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

    @property
    def worthwhile(self) -> bool:
        """Whether a stand-in does better than leaving the block out, by the whole interval where there is one."""
        over = next((one for one in self.costs if one.what == SHARED[SKILL]), None)
        if over is None or over.mean is None:
            return False
        return (over.mean if over.high is None else over.high) < 1


def changes(found: Found) -> list[Change]:
    """The deletions, and the blocks in another's place, that change the representation least; a few of each."""
    surgery, splice = found.of("interventions", Surgery), found.of("splice", Splice)
    return [
        *([] if surgery is None else _deletions(surgery, found.speed)),
        *([] if splice is None else _shared(splice)),
    ]


def _deletions(surgery: Surgery, speed: Speed | None) -> Iterator[Change]:
    rows = surgery.rows("delete", surgery.readouts[-1]).sort_values("mean")
    for layers in list(rows["layers"])[:SHOWN]:
        share = 1 / surgery.layers if speed is None else speed.blocks[layers[0] - 1]
        yield Change("delete", tuple(layers), tuple(_costs(surgery, layers)), share)


def _shared(splice: Splice) -> list[Change]:
    """Of each block the best stand-in, by all tokens of the last state; first those better than without it."""
    return sorted(_stand_ins(splice), key=lambda change: not change.worthwhile)[:SHOWN]


def _stand_ins(splice: Splice) -> Iterator[Change]:
    rows = splice.rows(EXCHANGE, R2).sort_values("mean", ascending=False)
    for layer, block in rows.drop_duplicates("end")[["end", "block"]].itertuples(index=False):
        cell = splice.full.query("surrogate == @EXCHANGE and end == @layer and block == @block")
        costs = [
            Measured(words, *_plain(_over_nothing(row) if measure == SKILL else row))
            for measure, words in SHARED.items()
            for _, row in cell[(cell["measure"] == measure) & cell["group"].isin([ALL, HEAD])].iterrows()
        ]
        yield Change("replace", (int(layer), int(block)), tuple(costs), 1 / splice.phases.layers)


def _over_nothing(row: pd.Series) -> pd.Series:
    """Error over that of doing nothing, of a row of skill."""
    return pd.Series({**row, "mean": 1 - row["mean"], "low": 1 - row["high"], "high": 1 - row["low"]})


def _costs(surgery: Surgery, layers: tuple[int, ...]) -> list[Measured]:
    """What a deletion does to each readout, and to predictions where there is a head."""
    table = surgery.table
    rows = table[(table["kind"] == "delete") & (table["layers"].map(tuple) == tuple(layers))]
    return [
        Measured(MEASURES[row["measure"]].format(row["readout"]), *_plain(row))
        for _, row in rows.iterrows()
        if row["measure"] in MEASURES
    ]


def _plain(row: pd.Series) -> list[float | None]:
    """Mean and interval; that of a share within 0 and 1."""
    least, most = LIMITS.get(row["measure"], (0.0, 1.0))
    values = [float(np.clip(row[name], least, most)) for name in ("mean", "low", "high")]
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


def advice(found: Found, costs: Sequence[Change]) -> list[str]:
    """What one can do, in sentences; `costs` are those that :func:`changes` gives."""
    phases, speed = found.of("phases", Phases), found.speed
    surgery, splice = found.of("interventions", Surgery), found.of("splice", Splice)
    lines = []
    if phases is not None:
        read = [reading(phases, found.of("probe", LayerProbe), found.why_not("probe"))]
        read += [said(one, phases) for one in found.probes.values()]
        lines += [f"To read features: {one}." for one in read]
    if unchanged := found.why_not("interventions"):
        lines.append(f"To delete: not measured: {unchanged}.")
    for kind, opening, of in (("delete", "To delete", surgery), ("replace", "To share", splice)):
        best = next((one for one in costs if one.kind == kind), None)
        if best is not None and of is not None:
            n_images = int(of.table["n_images"].max())
            lines.append(f"{opening}: {_said(best)} ({counted(n_images, 'image')}, nothing is trained again).")
    if surgery is not None:
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
    costs = f"costs least: {_costs_of(change)}"
    if change.kind == "delete":
        return f"{change.words} {costs}; saves {change.saved:.1%} of the time"
    if not change.worthwhile:
        return (
            "no block is shown to do better in the place of another than leaving that out; by R² "
            f"{change.words} {costs}"
        )
    return (
        f"of the blocks shared that are shown to do better than leaving a layer out, {change.words} {costs}; saves "
        f"{change.saved:.1%} of the blocks' parameters"
    )


def _costs_of(change: Change) -> str:
    return ", ".join(
        f"{one.what} {one.mean:.2f}" + (f" [{one.low:.2f}, {one.high:.2f}]" if one.low is not None else "")
        for one in change.costs
        if one.mean is not None
    )


def _listed(layers: Sequence[int]) -> str:
    return ", ".join(map(str, layers))
