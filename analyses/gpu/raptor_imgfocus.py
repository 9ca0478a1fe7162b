"""Run 3: Raptors of the offline model at full length: k = 1 to 5, seeds at k = 3, then partitions and the recipe.

    python -m analyses.gpu.raptor_imgfocus --data data --out piece1
    python -m analyses.gpu.raptor_imgfocus --data data --state piece1 --out piece2

A fit is made within a piece (the longest, four times as long, in one of its own); there is nothing to carry but
results. `trunk.safetensors` has the model's weights, from
`python -m analyses.export_trunk --dtype float16 --file trunk.safetensors`, for a machine without its package.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from analyses.gpu.piece import PHOTOS, TEST, TRAIN, TRUNK, GpuRun, Piece, Work, main
from analyses.raptor_on_vits import SIZES, cells
from analyses.recording import OFFLINE
from brdyn.store import read_json

RUN = GpuRun(
    name="raptor_imgfocus",
    shows="how much of a pretrained ViT k = 1 to 5 blocks keep (96, 98, 98.5 % published for k = 2, 3, 4), seed by "
    "seed; then max-cut against random phases, and the recipe taken apart",
    data=(TRAIN, TEST),
    offline=True,
    optional=(PHOTOS, TRUNK),
    minutes="20 for k = 1 to 5 and the seeds, in 3 pieces; 80 for all cells, in 12",
    carries="nothing but results",
    writes=(f"raptor/{OFFLINE}/gpu/*.json", f"raptor/{OFFLINE}/gpu/*.parquet", f"raptor/{OFFLINE}/tiny/*.json",
            f"raptor/{OFFLINE}/tiny/*.parquet"),
)  # fmt: skip
CELL_MINUTES = 3.5  # of a fit and its evaluation beside another
LONG_MINUTES = 7.0  # of the longest fit, alone
LONGER = "_longer"
AT_ONCE = 2


def study(piece: Piece) -> Path:
    """Folder of the study."""
    return piece.home / "raptor" / OFFLINE / ("tiny" if piece.tiny else "gpu")


def do(piece: Piece) -> None:
    """First the fits by k and seed, then the rest, two at a time on one card."""
    size = study(piece).name
    shared = [
        "--train",
        piece.data(TRAIN),
        "--test",
        piece.data(TEST),
        "--size",
        size,
        "--out",
        piece.home / "raptor",
    ]
    shared += [*piece.option("--photos", PHOTOS), *piece.option("--weights", TRUNK)]
    names = [cell.name for cell in cells(SIZES[size].steps)]
    first = [name for name in names if name.startswith("maxcut") and not name.endswith(LONGER)]
    ordered = [*first, *(name for name in names if name not in first)]
    if piece.tiny:
        ordered = ordered[:1]
    if not (study(piece) / "phases.json").is_file():  # not to be found twice at once
        piece.call("raptor_on_vits", *shared, "--minutes", 0)
    missing = [name for name in ordered if not recorded(piece, name)]
    long = [name for name in missing if name.endswith(LONGER)]
    short = [name for name in missing if name not in long]
    if short and piece.minutes > CELL_MINUTES:
        minutes = piece.minutes if piece.tiny else piece.minutes - CELL_MINUTES
        shares = [short[number::AT_ONCE] for number in range(AT_ONCE)]
        piece.side_by_side(
            [
                ("raptor_on_vits", [*shared, "--minutes", minutes, "--cells", ",".join(share)])
                for share in shares
                if share
            ]
        )
    elif long and piece.minutes > LONG_MINUTES:  # the whole piece is its own
        piece.call("raptor_on_vits", *shared, "--cells", ",".join(long))


def recorded(piece: Piece, name: str) -> bool:
    """Whether a fit is, and did not fail."""
    path = study(piece) / f"{name}.json"
    return path.is_file() and "failed" not in read_json(path, "a fit")


def state(piece: Piece) -> Sequence[Path]:
    """Nothing."""
    return []


def table(piece: Piece) -> tuple[list[str], bool]:
    """Of each fit: R^2 of the last layer, and the share of the teacher's accuracy that probes keep."""
    lines = [f"{'fit':<32} {'R2':>6} {'linear':>8} {'k-NN':>8} {'seconds':>8}"]
    missing = 0
    for cell in cells(SIZES[study(piece).name].steps):
        path = study(piece) / f"{cell.name}.json"
        if not path.is_file():
            missing += 1
            continue
        found = read_json(path, "a fit")
        if "failed" in found:
            missing += 1
            lines.append(f"{cell.name:<32} {found['failed']}")
            continue
        curves = pd.read_parquet(path.with_suffix(".parquet"))
        rows = curves.query(
            "images == 'test' and statistic == 'r2' and mode == 'autoregressive' and group == 'all'"
        )
        r2 = rows.sort_values("layer")["mean"].iloc[-1]
        kept = {row["probe"]: row["ratio"] for row in found["probing"]["ratios"]}
        seconds = found["fit_seconds"] + found["evaluation_seconds"]
        lines.append(f"{cell.name:<32} {r2:>6.3f} {kept['linear']:>8.1%} {kept['knn']:>8.1%} {seconds:>8.0f}")
    lines.append(f"{missing} to go")
    return lines, missing == 0 or piece.tiny


WORK = Work(do, state, table)

if __name__ == "__main__":
    main(RUN, WORK, __doc__)
