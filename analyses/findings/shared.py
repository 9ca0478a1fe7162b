"""Networks whose layers share blocks from the start, beside those whose layers do not and Raptors of these."""

from __future__ import annotations

from functools import partial

import numpy as np

from analyses.rules import Numbers
from analyses.shared_blocks import RAPTOR, RAPTOR_K, SHORT, WIDE, Shared, plain
from analyses.statistics import Side, contrast


def _behind(study: Shared, kind: str) -> Numbers | None:
    """How far a kind of networks is behind those with a block for each layer."""
    if not (rights := study.of(plain(study.size))) or not (others := study.of(kind)):
        return None
    right = study.cells.groupby("kind")["accuracy"].mean()
    lead = contrast(Side(100, [*rights.values()]), Side(-100, [*others.values()]))
    return {
        "lead": lead, "seeds": min(len(rights), len(others)), "plain": right[plain(study.size)],
        "shared": right[kind], "short": right.get(SHORT, np.nan), "size": study.size,
    }  # fmt: skip


one_block, one_wide_block = partial(_behind, kind="k1"), partial(_behind, kind=WIDE)


def from_the_start(study: Shared) -> Numbers | None:
    """What three blocks keep of the accuracy of a block for each layer, trained from the start less distilled, in
    points. Of one seed both are of the same network."""
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
