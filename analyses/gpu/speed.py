"""Run 4: every speed ratio, what bfloat16 changes, a giant from end to end, and where the time of a step goes.

    python -m analyses.gpu.speed --data data --out piece1

A part that is recorded is left alone; remove its file in the results to measure it anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from analyses.gpu.piece import PHOTOS, TRAIN, TRUNK, GpuRun, Piece, Work, main
from analyses.recording import suffix_of
from brdyn.store import read_json, to_json, write_atomically

RUN = GpuRun(
    name="speed",
    shows="a stage-2 step of Raptor and a training step of ViTRM against direct write-ups (3 x is the goal), what "
    "capture and measures cost on top of a forward pass, agreement of bfloat16 with float32, dinov2_vitg14 (random "
    "weights) from end to end with images/s and peak memory, and a profile of both steps",
    data=(PHOTOS, TRAIN),
    offline=True,
    optional=(TRUNK,),
    minutes="14, in 2 pieces",
    carries="nothing but results",
    writes=tuple(
        f"{name}{{suffix}}.json" for name in ("bench_*", "precision", "end_to_end_*", "profile_steps")
    ),
)
GIANT = "dinov2_vitg14"
TRIED = "speed_tried.json"


def parts(piece: Piece) -> dict[str, tuple[str, list[object]]]:
    """What is recorded, by its file's name, the most telling first: a study and its options."""
    tiny, trunk = piece.tiny, piece.option("--weights", TRUNK)
    photos = ["--images", piece.data(PHOTOS)]
    few: list[object] = ["--rounds", 2, "--batch-size", 2]
    small: list[object] = ["--image-size", 28]
    giant = ["--model", GIANT, "--init", "random", "--dtype", "bfloat16"] if not tiny else [*small, *trunk]
    quick: list[object] = [*small, "--rounds", 2, "--overlap-images", 4, "--memory-images", "2"]
    return {
        "bench_raptor": ("bench_raptor", [*trunk, *([*few, *small] if tiny else [])]),
        "bench_vitrm": ("bench_vitrm", ["--data", piece.data(TRAIN), *([*few, "--width", 48] if tiny else [])]),
        "precision": ("precision", [*photos, *trunk, "--n", 4 if tiny else 256, *(small if tiny else [])]),
        "profile_steps": (
            "profile_steps", [*trunk, *([*small, "--batch-size", 2, "--width", 48, "--steps", 1] if tiny else [])],
        ),
        "bench_capture": ("bench_capture", [*photos, *trunk, *(quick if tiny else [])]),
        "bench_dynamics": ("bench_dynamics", [*photos, *trunk, *([*few, *small] if tiny else [])]),
        f"end_to_end_{GIANT if not tiny else 'imgfocus_vits14'}": (
            "end_to_end", [*photos, *giant, "--n", 4 if tiny else 256],
        ),
    }  # fmt: skip


def place(piece: Piece, name: str) -> Path:
    """Where a part is recorded."""
    return piece.home / f"{name}{suffix_of(piece.device)}.json"


def do(piece: Piece) -> None:
    """One part after another; those that an earlier piece began and did not end come last."""
    known = parts(piece)
    before = tried(piece)
    for name in sorted(known, key=before.count):  # in their order otherwise
        study, options = known[name]
        if piece.minutes <= 0:
            return
        if not place(piece, name).is_file():
            write_atomically(piece.home / TRIED, to_json({"tried": [*tried(piece), name]}))
            piece.call(study, *options, "--out", piece.home)


def tried(piece: Piece) -> list[str]:
    """The parts that were begun, one for each time."""
    path = piece.home / TRIED
    return read_json(path, "the parts that were tried")["tried"] if path.is_file() else []


def state(piece: Piece) -> Sequence[Path]:
    """What was tried."""
    return [path for path in [piece.home / TRIED] if path.is_file()]


def table(piece: Piece) -> tuple[list[str], bool]:
    """One line on each part."""
    lines, missing = [], 0
    for name in parts(piece):
        path = place(piece, name)
        missing += not path.is_file()
        found = read_json(path, "a benchmark") if path.is_file() else None
        lines.append(f"{name}: {_word(name, found) if found is not None else 'not yet'}")
    return lines, not missing


def _word(name: str, found: dict[str, Any]) -> str:
    """What a part says, shortly."""
    if name == "bench_raptor":
        return ", ".join(f"{one['speedup']:.2f} x in {one['dtype']}" for one in found["steps"])
    if name == "bench_vitrm":
        return ", ".join(f"{one['speedup']:.2f} x in {one['dtype']}" for one in found["training"])
    if name == "bench_capture":
        return ", ".join(f"{one['model']} {one['similarity']} {one['ratio']:.3f}" for one in found["capture"])
    if name == "bench_dynamics":
        return f"{found['ratio']:.2f} x a forward, sweep {found['perturbation_sweep']['ratio']:.2f}"
    if name == "precision":
        return ", ".join(
            f"{kind} {one['largest_difference']:.1e} (same boundaries for {len(one['k_with_the_same_boundaries'])} of "
            f"{one['layers']} k)" for kind, one in found["similarity"].items()
        )  # fmt: skip
    if name == "profile_steps":
        return ", ".join(
            f"{step} {found[step]['milliseconds']:.1f} ms, busy {found[step]['busy']:.0%}"
            for step in ("raptor", "vitrm")
        )
    return ", ".join(
        f"{one['run']} {one['images_per_second']:.1f} images/s, {one['peak_mib'] / 1024:.1f} GiB"
        for one in found["runs"]
    )


WORK = Work(do, state, table)

if __name__ == "__main__":
    main(RUN, WORK, __doc__)
