"""Run 2: small ViTs under stochastic depth, then Raptors on them, read out by the ViTs' own heads.

    python -m analyses.gpu.stochastic_depth --data data --out piece1
    python -m analyses.gpu.stochastic_depth --data data --state piece1 --out piece2

A piece finishes the networks that are begun before it begins others, two at a time on one card. The state has the
trained networks whose Raptors are not all fitted; a network's training that a piece cuts short is begun anew elsewhere.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import yaml

from analyses.gpu.piece import ROOT, TEST, TRAIN, GpuRun, Piece, Work, main
from analyses.stochastic_depth import place_of
from analyses.stochastic_depth_plan import Cell, Config, Network
from brdyn.classifiers.recipe import BEST
from brdyn.classifiers.saved import is_classifier
from brdyn.store import read_json, to_json, write_atomically
from brdyn.store.result_files import TRAIN_RESULT

RUN = GpuRun(
    name="stochastic_depth",
    shows="do phases grow even, layers similar and Raptors faithful with the drop-path rate; max-cut against random "
    "phases; untrained, half-trained and overfit networks; the networks that cifar_vit12 is chosen from",
    data=(TRAIN, TEST),
    minutes="120, in 14 pieces",
    carries="networks whose Raptors are not all fitted (10 MiB for each moment of each)",
    writes=tuple(
        f"stochastic_depth/{size}/{what}"
        for size in ("gpu", "tiny")
        for what in ("config.json", "networks/*.json", "fits/*/*.json")
    ),
)
CONFIG = ROOT / "analyses" / "stochastic_depth.yaml"
AT_ONCE = 2
TRAIN_MINUTES = 5.0  # of two networks side by side
TINY = {
    "name": "tiny",
    "network": {"model": "vit-tiny12", "width": 8, "depth": 4, "heads": 1, "hidden": 8, "patch": 16},
    "train_images": 60, "test_images": 30, "held_out": 20, "drop_path": [0.0, 0.5], "seeds": 1,
    "training": {"epochs": 2, "warmup_epochs": 0, "batch_size": 20, "operations": 0, "mixup": 0.0, "cutmix": 0.0},
    "middle": 1, "similarity": {"images": 20, "replicates": 5}, "phases": [2, 3, 4], "followed_rates": [0.0],
    "raptor": {"k": [3], "partitioned": [3], "draws": 1, "moments_k": [3], "test_images": 20,
               "settings": {"stage1_steps": 1, "stage2_steps": 1, "batch_size": 10}},
}  # fmt: skip


def config_of(piece: Piece) -> tuple[Path, Config]:
    """The study's file, and what it says."""
    if not piece.tiny:
        return CONFIG, Config.read(CONFIG)
    path = piece.home / "stochastic_depth_tiny.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, to_json({**yaml.safe_load(CONFIG.read_text()), **TINY}))
    return path, Config.read(path)


def do(piece: Piece) -> None:
    """Networks that are begun, then others; each with its Raptors."""
    path, config = config_of(piece)
    home = piece.home / "stochastic_depth"
    files = ["--config", path, "--train", piece.data(TRAIN), "--test", piece.data(TEST), "--out", home]
    tried: set[str] = set()
    while piece.minutes > 0:
        waiting = [one for one in config.networks() if one.run not in tried and left(home, config, one)]
        begun = [one for one in waiting if is_trained(home, config, one)]
        fresh = [one for one in waiting if one not in begun]
        if not piece.tiny and piece.minutes < TRAIN_MINUTES:  # it would be begun anew
            fresh = []
        chosen = [*begun, *fresh][:AT_ONCE]
        if not chosen:
            break
        tried |= {one.run for one in chosen}
        workers = 0 if piece.tiny else 6
        shared = [*files, "--minutes", piece.minutes, "--workers", workers]
        piece.side_by_side([("stochastic_depth", [*shared, "--networks", one.run]) for one in chosen])
    for one in config.networks():
        if recorded(home, config, one) and not left(home, config, one) and one.run != best(home, config):
            shutil.rmtree(home / config.name / "runs" / one.run, ignore_errors=True)


def recorded(home: Path, config: Config, one: Network) -> bool:
    """Whether a network is, at every moment."""
    return all(is_whole(result(home, config, moment)) for moment in config.moments(one))


def is_trained(home: Path, config: Config, one: Network) -> bool:
    """Whether a network's training is over."""
    return recorded(home, config, one) or (home / config.name / "runs" / one.run / TRAIN_RESULT).is_file()


def is_whole(path: Path) -> bool:
    """Whether a result is there and is no failure."""
    return path.is_file() and "failed" not in read_json(path, "a result of this study")


def result(home: Path, config: Config, one: Network) -> Path:
    """Where a network is recorded."""
    return home / config.name / "networks" / f"{one.name}.json"


def cells(config: Config, one: Network) -> list[Cell]:
    """Its Raptors."""
    followed = [moment for moment in config.followed({}) if moment.run == one.run]
    return [cell for cell in config.cells(followed) if cell.teacher.run == one.run]


def left(home: Path, config: Config, one: Network) -> list[Cell]:
    """Those that are not recorded; all of them before the network is."""
    return [
        cell
        for cell in cells(config, one)
        if not is_whole(home / config.name / "fits" / cell.teacher.name / f"{cell.name}.json")
    ]


def best(home: Path, config: Config) -> str:
    """The run with the highest accuracy on held-out images so far; empty where there is none."""
    watched: dict[str, float] = {}
    for one in config.networks():
        path = result(home, config, one)
        if path.is_file():
            rows = read_json(path, "a network").get("validation") or []
            watched[one.run] = max([0.0, *(row["accuracy"] for row in rows)])
    return max(watched, key=lambda run: watched[run], default="")


def state(piece: Piece) -> Sequence[Path]:
    """Networks that Raptors are still to be fitted to, at their best, then at other moments; then the best of all."""
    _, config = config_of(piece)
    home = piece.home / "stochastic_depth"
    runs = home / config.name / "runs"
    at_best: list[Path] = []
    others: list[Path] = []
    for one in config.networks():
        if not is_trained(home, config, one) or not left(home, config, one):
            continue
        measured = recorded(home, config, one)
        needed = [cell.teacher for cell in left(home, config, one)] if measured else config.moments(one)
        for moment in dict.fromkeys(needed):
            (at_best if moment.moment == BEST else others).extend(_place(runs, config, moment))
        if not measured:
            others.append(runs / one.run / TRAIN_RESULT)
    champion = best(home, config)
    wanted = [*at_best, *others, *([runs / champion / BEST] if champion else [])]
    return [path for path in dict.fromkeys(wanted) if path.exists()]


def _place(runs: Path, config: Config, one: Network) -> list[Path]:
    """The files of a network at a moment; of the last epoch, which lie in the run's own folder, just these."""
    place = place_of(runs, config, one)
    if not is_classifier(place):
        return []
    return (
        [place / name for name in ("config.json", "model.safetensors")]
        if place == runs / one.run
        else [place]
    )


def table(piece: Piece) -> tuple[list[str], bool]:
    """Of each network: accuracy, and how many Raptors are recorded."""
    _, config = config_of(piece)
    home = piece.home / "stochastic_depth"
    lines = [f"{'network':<14} {'accuracy':>9} {'Raptors':>8}"]
    whole = True
    for one in config.networks():
        planned, missing = len(cells(config, one)), len(left(home, config, one))
        there = recorded(home, config, one)
        whole = whole and there and not missing
        found = read_json(result(home, config, one), "a network") if there else {}
        right = f"{found['accuracy']:.2%}" if "accuracy" in found else found.get("failed", "not yet")
        lines.append(f"{one.run:<14} {right:>9} {planned - missing:>4}/{planned}")
    return lines, whole


WORK = Work(do, state, table)

if __name__ == "__main__":
    main(RUN, WORK, __doc__)
