"""Run 1: ViTRM on CIFAR-10 at batch 128, ViT-Small and ResNet-18 beside it, and how their tokens move.

    python -m analyses.gpu.vitrm_cifar --data data --out piece1
    python -m analyses.gpu.vitrm_cifar --data data --state piece1 --out piece2

ViTRM goes on from its checkpoint in the state. The baselines' checkpoints (200 and 134 MB) are too large for one: each
is begun at the start of a piece, has to end within it, and goes on from a checkpoint only where that piece was.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from analyses.gpu.piece import PHOTOS, TEST, TRAIN, TRUNK, GpuRun, Piece, Work, main
from analyses.vitrm_on_cifar import LINEAR, SIZES
from brdyn.classifiers.recipe import VITRM_NAME
from brdyn.classifiers.saved import is_classifier
from brdyn.store import read_json
from brdyn.store.unfinished import CHECKPOINTS
from brdyn.training import Checkpoints

RUN = GpuRun(
    name="vitrm_cifar",
    shows="ViTRM trained from scratch (88 % is the floor, 93.1 % published after 1000 epochs), at equal epochs and "
    "equal time with ViT-Small and ResNet-18; do its steps converge, repair noise and lose rank",
    data=(TRAIN, TEST),
    offline=True,
    optional=(PHOTOS, TRUNK),
    minutes="22 for 50 epochs of each, in 4 pieces (a baseline that does not end within its piece wants fewer "
    "`--epochs`); with `--published` 130 for ViTRM's 1000 epochs alone, in 18",
    carries="ViTRM's checkpoint (55 MiB) while it trains; then the two transformers in float16 (39 MiB)",
    writes=tuple(
        f"vitrm/{size}/{what}"
        for size in ("gpu", "published", "tiny")
        for what in ("*.json", "dynamics/*.json")
    ),
)
DYNAMICS = "dynamics"
FEW = ("--n", "8", "--n-repair", "2", "--steps", "2")
LEAST_MINUTES = 6.5  # to begin a baseline with, which has to end within the piece


def study(piece: Piece) -> Path:
    """Folder of the study."""
    size = "tiny" if piece.tiny else "published" if piece.choice.published else "gpu"
    return piece.home / "vitrm" / size


def options(parser: argparse.ArgumentParser) -> None:
    """What it takes besides."""
    parser.add_argument(
        "--epochs", type=float, help="of all networks, the same in every piece (default: 50; published: 1000)"
    )
    parser.add_argument("--published", action="store_true", help="ViTRM alone, for the published 1000 epochs")


def has_baselines(piece: Piece) -> bool:
    """Whether other networks are trained beside ViTRM, to compare their motion."""
    return len(SIZES[study(piece).name].networks) > 1


def do(piece: Piece) -> None:
    """The linear classifier, one network after another, then how tokens move."""
    size = study(piece).name
    networks = SIZES[size].networks
    files = [
        "--train",
        piece.data(TRAIN),
        "--test",
        piece.data(TEST),
        "--size",
        size,
        "--out",
        piece.home / "vitrm",
    ]
    if piece.choice.epochs is not None:
        files += ["--epochs", piece.choice.epochs]
    if has_baselines(piece) and not (study(piece) / f"{LINEAR}.json").is_file():
        piece.call("vitrm_on_cifar", *files, "--only", LINEAR)
    for name in networks:
        if (study(piece) / f"{name}.json").is_file():
            continue
        whole = name != VITRM_NAME and not (study(piece) / "runs" / name / CHECKPOINTS).is_dir()
        if piece.minutes <= (LEAST_MINUTES if whole and not piece.tiny else 0):
            return
        piece.call("vitrm_on_cifar", *files, "--only", name, "--minutes", piece.minutes)
        if not (study(piece) / f"{name}.json").is_file():
            return
    if not has_baselines(piece):
        return
    images = piece.data(PHOTOS) or piece.data(TEST)
    moved = [*FEW] if piece.tiny else ["--workers", 8]
    weights = piece.option("--weights", TRUNK)
    out = ["--out", piece.home / "vitrm", "--size", size]
    piece.call("vitrm_dynamics", "--images", images, *out, *moved, *weights)


def state(piece: Piece) -> Sequence[Path]:
    """Trained transformers, and the newest checkpoint of what is not trained."""
    runs = study(piece) / "runs"
    wanted: list[Path] = []
    for name in SIZES[study(piece).name].networks:
        place = runs / name
        if is_classifier(place):
            recorded = [place / file for file in ("config.json", "model.safetensors", "train.json")]
            wanted += [path for path in recorded if path.is_file()] if name != "resnet18" else []
        wanted += Checkpoints(place / CHECKPOINTS, {}).paths()[-1:]
    return wanted


def table(piece: Piece) -> tuple[list[str], bool]:
    """Accuracy and speed of each network."""
    lines = [f"{'network':<12} {'epochs':>7} {'accuracy':>9} {'images/s':>9} {'minutes':>8}"]
    networks = SIZES[study(piece).name].networks
    for name in networks:
        path = study(piece) / f"{name}.json"
        if path.is_file():
            found = read_json(path, "a trained network", ("history", "evaluation", "options"))
            history, epochs = found["history"], found["options"]["recipe"]["epochs"]
            lines.append(
                f"{name:<12} {epochs:>7g} {found['evaluation']['accuracy']:>9.2%} "
                f"{history['images_per_second']:>9.0f} {history['seconds'] / 60:>8.1f}"
            )
        else:
            newest = Checkpoints(study(piece) / "runs" / name / CHECKPOINTS, {}).paths()[-1:]
            lines.append(f"{name:<12} {'at ' + newest[0].name if newest else 'not begun'}")
    whole = all((study(piece) / f"{name}.json").is_file() for name in networks)
    if has_baselines(piece):
        moved = sorted(path.stem for path in (study(piece) / DYNAMICS).glob("*.json"))
        lines.append(f"motion recorded of: {', '.join(moved) or 'none'}")
        whole = whole and len(moved) == 3
    return lines, whole


WORK = Work(do, state, table, options)

if __name__ == "__main__":
    main(RUN, WORK, __doc__)
