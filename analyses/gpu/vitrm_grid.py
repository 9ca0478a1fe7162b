"""Run 5: ViTRM's n x N_sup grid at short epochs, and its batch sizes.

python -m analyses.gpu.vitrm_grid --data data --out piece1
python -m analyses.gpu.vitrm_grid --data data --state piece1 --out piece2
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from analyses.gpu.piece import TEST, TRAIN, GpuRun, Piece, Work, main
from analyses.vitrm_grid import SIZES, cells
from brdyn.store import read_json
from brdyn.store.unfinished import CHECKPOINTS
from brdyn.training import Checkpoints

RUN = GpuRun(
    name="vitrm_grid",
    shows="what latent depth n and supervision depth N_sup are worth (n = 3, N_sup = 1 published as best), and whether "
    "accuracy holds from batch 64 to 1024",
    data=(TRAIN, TEST),
    minutes="35, in 5 pieces",
    carries="the checkpoint of the cell it was in (55 MiB)",
    writes=("vitrm_grid/gpu/*.json", "vitrm_grid/tiny/*.json"),
)


def study(piece: Piece) -> Path:
    """Folder of the study."""
    return piece.home / "vitrm_grid" / ("tiny" if piece.tiny else "gpu")


def do(piece: Piece) -> None:
    """One cell after another."""
    files = ["--train", piece.data(TRAIN), "--test", piece.data(TEST)]
    where = ["--size", study(piece).name, "--out", piece.home / "vitrm_grid"]
    piece.call("vitrm_grid", *files, *where, "--minutes", piece.minutes)


def state(piece: Piece) -> Sequence[Path]:
    """The newest checkpoint of the cell that is not over."""
    return [
        checkpoint
        for name in cells(SIZES[study(piece).name])
        for checkpoint in Checkpoints(study(piece) / "runs" / name / CHECKPOINTS, {}).paths()[-1:]
    ]


def table(piece: Piece) -> tuple[list[str], bool]:
    """Accuracy of each cell."""
    lines, missing = [f"{'cell':<14} {'accuracy':>9} {'images/s':>9}"], 0
    for name in cells(SIZES[study(piece).name]):
        path = study(piece) / f"{name}.json"
        found = read_json(path, "a cell") if path.is_file() else {}
        missing += "accuracy" not in found
        if "accuracy" in found:
            speed = found["history"]["images_per_second"]
            lines.append(f"{name:<14} {found['accuracy']:>9.2%} {speed:>9.0f}")
        elif "failed" in found:
            lines.append(f"{name:<14} {found['failed']}")
    lines.append(f"{missing} to go")
    return lines, not missing


WORK = Work(do, state, table)

if __name__ == "__main__":
    main(RUN, WORK, __doc__)
