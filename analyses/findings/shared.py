"""Networks whose layers share blocks from the start, beside those whose layers do not and Raptors of these."""

from __future__ import annotations

from functools import partial

import numpy as np

from analyses.rules import Numbers
from analyses.shared_blocks import RAPTOR, RAPTOR_K, SHORT, WIDE, Shared, plain
from analyses.statistics import Side, contrast


def accuracies(study: Shared) -> dict[str, float]:
    """Mean accuracy over seeds, by kind."""
    mean = study.cells.groupby("kind", sort=False)["accuracy"].mean()
    return {str(kind): float(value) for kind, value in mean.items()}


def _behind(study: Shared | None, kind: str) -> Numbers | None:
    """How far a kind of networks is behind those with a block for each layer."""
    if study is None or not (rights := study.of(plain(study.size))) or not (others := study.of(kind)):
        return None
    right = accuracies(study)
    lead = contrast(Side(100, [*rights.values()]), Side(-100, [*others.values()]))
    return {
        "lead": lead, "seeds": min(len(rights), len(others)), "plain": right[plain(study.size)],
        "shared": right[kind], "short": right.get(SHORT, np.nan), "size": study.size,
    }  # fmt: skip


one_block, one_wide_block = partial(_behind, kind="k1"), partial(_behind, kind=WIDE)


def from_the_start(study: Shared | None) -> Numbers | None:
    """What three blocks keep of the accuracy of a block for each layer, trained from the start less distilled, in
    points. Of one seed both are of the same network."""
    if study is None:
        return None
    kinds = [study.of(kind) for kind in (plain(study.size), f"k{RAPTOR_K}", RAPTOR)]
    seeds = sorted(set.intersection(*map(set, kinds)))
    if not seeds:
        return None
    teachers, trained, distilled = (np.array([kind[seed] for seed in seeds]) for kind in kinds)
    accuracy = teachers.mean(1)
    kept, kept_distilled = trained.mean(1) / accuracy, distilled.mean(1) / accuracy
    gain = contrast(Side(100, (trained.astype(float) - distilled) / accuracy[:, None]))
    rows = study.cells[study.cells["kind"] == RAPTOR]
    return {
        "gain": gain, "kept": float(kept.mean()), "distilled": float(kept_distilled.mean()), "seeds": len(seeds),
        "r2": float(rows["r2"].mean()), "skill": float(rows["skill"].mean()),
    }  # fmt: skip
