"""The jobs, in the order of their worth: one quarter of an hour with a GPU should give the best of it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import yaml

from analyses.gpu.queue import PHOTOS, ROOT, TEST, TRAIN, TRUNK, Call, Job, Queue
from analyses.raptor_on_vits import SIZES as RAPTOR_SIZES
from analyses.raptor_on_vits import cells as raptor_cells
from analyses.recording import OFFLINE, suffix_of
from analyses.stochastic_depth_plan import Cell, Config, Network, place_of
from analyses.study import is_recorded
from analyses.vitrm_grid import SIZES as GRID_SIZES
from analyses.vitrm_grid import cells as grid_cells
from analyses.vitrm_on_cifar import LINEAR
from analyses.vitrm_on_cifar import SIZES as CIFAR_SIZES
from brdyn.classification.kept import RESULT
from brdyn.classification.recipe import BEST, VITRM_NAME
from brdyn.classification.saved import is_classifier
from brdyn.results import read_json, to_json
from brdyn.store import write_atomically
from brdyn.training import Checkpoints
from brdyn.training.settings import CHECKPOINTS

GIANT = "dinov2_vitg14"
TINY_DEPTH: dict[str, Any] = {
    "name": "tiny",
    "network": {"model": "vit-tiny12", "width": 8, "depth": 4, "heads": 1, "hidden": 8, "patch": 16},
    "train_images": 60, "test_images": 30, "held_out": 20, "drop_path": [0.0], "seeds": 1,
    "training": {"epochs": 2, "warmup_epochs": 0, "batch_size": 20, "operations": 0, "mixup": 0.0, "cutmix": 0.0},
    "middle": 1, "similarity": {"images": 20, "replicates": 5}, "phases": [2, 3, 4], "followed_rates": [0.0],
    "raptor": {"k": [3], "partitioned": [], "draws": 1, "moments_k": [], "test_images": 20,
               "settings": {"stage1_steps": 1, "stage2_steps": 1, "batch_size": 10}},
}  # fmt: skip
DEPTH_CONFIG = ROOT / "analyses" / "stochastic_depth.yaml"


# Benchmarks: one file each, and options that make them small.


def benchmark(
    name: str, shows: str, minutes: float, *options: object, tiny: tuple[object, ...] | None = None, file: str = "",
    trunk: bool = True, files: tuple[tuple[str, str], ...] = (), tiny_file: str = "",
) -> Job:  # fmt: skip
    """A job that one file is the result of; without options of a dry run it is left out of one."""

    def results(queue: Queue) -> list[Path]:
        stem = tiny_file if queue.tiny and tiny_file else file or name
        return [queue.home / f"{stem}{suffix_of(queue.choice.device)}.json"]

    def calls(queue: Queue) -> list[Call]:
        own = [*(tiny or ())] if queue.tiny else [*options]
        own += chain.from_iterable(queue.option(*one) for one in files)
        own += queue.option("--weights", TRUNK) if trunk and GIANT not in own else []
        return [(name, [*own, "--out", queue.home])]

    return Job(
        name=file or name, shows=shows, minutes=minutes, results=results, calls=calls, offline=trunk,
        data=tuple(one for _, one in files), writes=(f"{file or name}{{suffix}}.json",
                                                     *([f"{tiny_file}{{suffix}}.json"] if tiny_file else [])),
        tiny=tiny is not None,
    )  # fmt: skip


# Raptors of the offline model: every cell is a fit and its evaluation.

LONGER = "_longer"


def fits(longer: bool | None, *first: str, at_once: int = 2, **job: Any) -> Job:
    """A job of fits: those named, or all others, or those that are longer."""

    def names(queue: Queue) -> list[str]:
        every = [cell.name for cell in raptor_cells(RAPTOR_SIZES[queue.size()].steps)]
        return list(first) if longer is None else [one for one in every if one.endswith(LONGER) == longer]

    def results(queue: Queue) -> list[Path]:
        return [queue.home / "raptor" / OFFLINE / queue.size() / f"{name}.json" for name in names(queue)]

    def calls(queue: Queue) -> list[Call]:
        shared = ["--train", queue.data(TRAIN), "--test", queue.data(TEST), "--size", queue.size()]
        shared += [*queue.option("--photos", PHOTOS), *queue.option("--weights", TRUNK)]
        missing = [path.stem for path in results(queue) if not is_recorded(path)]
        there = (queue.home / "raptor" / OFFLINE / queue.size() / "phases.json").is_file()
        shares = (
            [missing[one::at_once] for one in range(at_once)] if there else [missing]
        )  # phases are found once
        minutes = queue.minutes if queue.tiny else max(0.0, queue.minutes - FIT_MINUTES)
        out = ["--out", queue.home / "raptor"]
        return [
            ("raptor_on_vits", [*shared, *out, "--minutes", minutes, "--cells", ",".join(share)])
            for share in shares
            if share
        ]

    where = tuple(
        f"raptor/{OFFLINE}/{size}/*.{kind}" for size in ("gpu", "tiny") for kind in ("json", "parquet")
    )
    return Job(results=results, calls=calls, offline=True, writes=where, **job)


FIT_MINUTES = 3.5  # of a fit and its evaluation


# ViTRM, what is trained beside it, and how their tokens move.


def networks(*names: str, full: str = "gpu", whole: bool = False, **job: Any) -> Job:
    """A job of networks; one whose checkpoint is too large for a state has to end within the run, as a whole."""

    def folder(queue: Queue) -> Path:
        return queue.home / "vitrm" / queue.size(full)

    def results(queue: Queue) -> list[Path]:
        return [folder(queue) / f"{name}.json" for name in names]

    def calls(queue: Queue) -> list[Call]:
        chosen: list[object] = [
            "--train",
            queue.data(TRAIN),
            "--test",
            queue.data(TEST),
            "--size",
            queue.size(full),
        ]
        epochs = epochs_of(queue, folder(queue)) if full == "gpu" and not queue.tiny else queue.choice.epochs
        chosen += ["--epochs", epochs] if epochs is not None else []
        missing = [path.stem for path in results(queue) if not is_recorded(path)]
        out = ["--out", queue.home / "vitrm", "--minutes", queue.minutes, "--only", ",".join(missing)]
        return [("vitrm_on_cifar", [*chosen, *out])]

    def state(queue: Queue) -> Iterator[Path]:
        if (chosen := folder(queue) / CHOSEN).is_file():
            yield chosen
        for name in names:
            yield from Checkpoints(folder(queue) / "runs" / name / CHECKPOINTS, {}).paths()[-1:]

    return Job(
        results=results, calls=calls, state=None if whole else lambda queue: list(state(queue)),
        writes=tuple(f"vitrm/{size}/*.json" for size in dict.fromkeys((full, "tiny"))), **job,
    )  # fmt: skip


EPOCHS = CIFAR_SIZES["gpu"].recipe.epochs
IMAGES = 50_000
CHOSEN = "epochs"  # a file that is no result
USED = 0.75  # of the time that is left, for training; the rest for loading, testing and what goes wrong


def epochs_of(queue: Queue, folder: Path) -> float | None:
    """As many epochs as fit into what is left, and the same for all networks and runs; None for those of the size."""
    if queue.choice.epochs is not None:
        return queue.choice.epochs
    for name in (VITRM_NAME, *CIFAR_SIZES["gpu"].networks):
        path = folder / f"{name}.json"
        if is_recorded(path):
            return read_json(path, "a trained network", ("options",))["options"]["recipe"]["epochs"]
    chosen = folder / CHOSEN
    if chosen.is_file():
        return read_json(chosen, "a number of epochs", ("epochs",))["epochs"]
    bench = queue.home / f"bench_vitrm{suffix_of(queue.choice.device)}.json"
    if not bench.is_file():
        return None
    speed = max(
        step["images_per_second"] for step in read_json(bench, "a benchmark", ("training",))["training"]
    )
    epochs = float(max(1, min(EPOCHS, int(USED * queue.minutes * 60 * speed / IMAGES))))
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(chosen, to_json({"epochs": epochs}))  # for a run that goes on from a checkpoint
    return epochs


def motion_results(queue: Queue) -> list[Path]:
    """How tokens move, by model."""
    home = queue.home / "vitrm" / queue.size() / "dynamics"
    return [home / f"{name}.json" for name in (VITRM_NAME, "vit-small", OFFLINE)]


def motion_calls(queue: Queue) -> list[Call]:
    """One study of all three, where both are trained."""
    few = ["--n", 8, "--n-repair", 2, "--steps", 2] if queue.tiny else ["--workers", 8]
    images = queue.data(PHOTOS) or queue.data(TEST)
    out = ["--out", queue.home / "vitrm", "--size", queue.size(), *few, *queue.option("--weights", TRUNK)]
    if not all(
        is_classifier(queue.home / "vitrm" / queue.size() / "runs" / one) for one in (VITRM_NAME, "vit-small")
    ):
        return []
    return [("vitrm_dynamics", ["--images", images, *out])]


def trained(queue: Queue) -> list[Path]:
    """The trained transformers, in float16."""
    runs = queue.home / "vitrm" / queue.size() / "runs"
    files = ("config.json", "model.safetensors", "train.json")
    return [
        path for name in (VITRM_NAME, "vit-small") for file in files if (path := runs / name / file).is_file()
    ]


# Ablations of ViTRM.


def grid_results(queue: Queue) -> list[Path]:
    """Every cell."""
    return [
        queue.home / "vitrm_grid" / queue.size() / f"{name}.json"
        for name in grid_cells(GRID_SIZES[queue.size()])
    ]


def grid_calls(queue: Queue) -> list[Call]:
    """One cell after another."""
    where = ["--size", queue.size(), "--out", queue.home / "vitrm_grid", "--minutes", queue.minutes]
    return [("vitrm_grid", ["--train", queue.data(TRAIN), "--test", queue.data(TEST), *where])]


def grid_state(queue: Queue) -> list[Path]:
    """The newest checkpoint of the cell that is not over."""
    runs = queue.home / "vitrm_grid" / queue.size() / "runs"
    return [
        path
        for name in grid_cells(GRID_SIZES[queue.size()])
        for path in Checkpoints(runs / name / CHECKPOINTS, {}).paths()[-1:]
    ]


# Stochastic depth: networks, and Raptors of them.


read_config_of = cache(Config.read)


def depth_config(queue: Queue) -> Config:
    """What the study consists of."""
    return read_config_of(depth_file(queue))


def depth_file(queue: Queue) -> Path:
    """Its file."""
    if not queue.tiny:
        return DEPTH_CONFIG
    path = queue.home / "stochastic_depth_tiny.yaml"
    write_atomically(path, to_json({**yaml.safe_load(DEPTH_CONFIG.read_text()), **TINY_DEPTH}))
    return path


def depth_path(queue: Queue, config: Config, cell: Network | Cell) -> Path:
    """Where a network, or a Raptor, is recorded."""
    home = queue.home / "stochastic_depth" / config.name
    if isinstance(cell, Network):
        return home / "networks" / f"{cell.name}.json"
    return home / "fits" / cell.teacher.name / f"{cell.name}.json"


def depth_fits(config: Config, one: Network) -> list[Cell]:
    """Raptors of a network."""
    followed = [moment for moment in config.followed({}) if moment.run == one.run]
    return [cell for cell in config.cells(followed) if cell.teacher.run == one.run]


def depth_results(queue: Queue) -> list[Path]:
    """Every network at every moment, and every Raptor."""
    config = depth_config(queue)
    cells: list[Network | Cell] = []
    for one in config.networks():
        cells += [*config.moments(one), *depth_fits(config, one)]
    return [depth_path(queue, config, cell) for cell in cells]


def depth_calls(queue: Queue) -> list[Call]:
    """Two networks at a time on one card, each with its Raptors before the next."""
    files = ["--config", depth_file(queue), "--train", queue.data(TRAIN), "--test", queue.data(TEST)]
    out = ["--out", queue.home / "stochastic_depth", "--minutes", queue.minutes]
    at_once, workers = (1, 0) if queue.tiny else (2, 6)
    shares = [["--share", f"{one}/{at_once}", "--workers", workers] for one in range(at_once)]
    return [("stochastic_depth", [*files, *out, *share]) for share in shares]


def depth_state(queue: Queue) -> list[Path]:
    """Networks that Raptors are still to be fitted to, at their best, then at other moments; then the best of all."""
    config = depth_config(queue)
    runs = queue.home / "stochastic_depth" / config.name / "runs"
    at_best: list[Path] = []
    others: list[Path] = []
    for one in config.networks():
        missing = [
            cell for cell in depth_fits(config, one) if not is_recorded(depth_path(queue, config, cell))
        ]
        measured = all(is_recorded(depth_path(queue, config, moment)) for moment in config.moments(one))
        if not missing or not (measured or (runs / one.run / RESULT).is_file()):
            continue
        needed = [cell.teacher for cell in missing] if measured else config.moments(one)
        for moment in dict.fromkeys(needed):
            (at_best if moment.moment == BEST else others).extend(_place(runs, config, moment))
        if not measured:
            others.append(runs / one.run / RESULT)
    champion = depth_best(queue, config)
    wanted = [*at_best, *others, *([runs / champion / BEST] if champion else [])]
    return [path for path in dict.fromkeys(wanted) if path.exists()]


def depth_best(queue: Queue, config: Config) -> str:
    """The run with the highest accuracy on held-out images so far; empty where there is none."""
    watched = {
        one.run: max(
            [0.0, *(row["accuracy"] for row in read_json(path, "a network").get("validation") or [])]
        )
        for one in config.networks()
        if (path := depth_path(queue, config, one)).is_file()
    }
    return max(watched, key=lambda run: watched[run], default="")


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


MAIN_FITS = ("maxcut_k2", "maxcut_k4", "maxcut_k1", "maxcut_k5", "maxcut_k3_seed1", "maxcut_k3_seed2")
CAPTURE = (("--images", PHOTOS),)
JOBS: tuple[Job, ...] = (
    benchmark("gpu.cuda_tests", "the tests that need a GPU", 1, file="cuda_tests", tiny=None, trunk=False),
    benchmark("bench_raptor", "a stage-2 step of Raptor against a direct write-up (3 x is the goal)", 0.8),
    benchmark("bench_vitrm", "a training step of ViTRM against a direct write-up (3 x is the goal)", 0.7, trunk=False,
              files=(("--data", TRAIN),)),
    benchmark("bench_dynamics", "what measures of motion cost on top of a forward pass", 0.5, files=CAPTURE),
    benchmark("bench_capture", "what capture costs, of dinov2_vitg14 (random weights) too", 1.2, "--memory-images", "",
              "--overlap-images", 200, files=CAPTURE, tiny=("--image-size", 28, "--rounds", 2, "--overlap-images", 4,
                                                            "--memory-images", "")),
    fits(None, "maxcut_k3", name="raptor_k3", minutes=4.5, at_once=1, tiny=False,
         shows="how much of a pretrained ViT three blocks keep (98 % published)"),
    networks(LINEAR, VITRM_NAME, name="vitrm", minutes=7, least=2.5, carries="its checkpoint (55 MiB) while it trains",
             shows="ViTRM trained from scratch (88 % is the floor, 93.1 % published after 1000 epochs); at most "
             f"{EPOCHS:g} epochs, fewer where the time is short"),
    benchmark("precision", "agreement of bfloat16 with float32", 1, "--n", 256, files=CAPTURE),
    benchmark("profile_steps", "where the time of both training steps goes", 0.6,
              tiny=("--image-size", 28, "--batch-size", 2, "--width", 48, "--steps", 1)),
    benchmark("end_to_end", "dinov2_vitg14 (random weights) from end to end, with images/s and peak memory", 2,
              "--model", GIANT, "--init", "random", "--dtype", "bfloat16", "--n", 256, files=CAPTURE,
              tiny=("--n", 4, "--image-size", 28), file=f"end_to_end_{GIANT}", tiny_file=f"end_to_end_{OFFLINE}"),
    fits(None, *MAIN_FITS, name="raptor_k", minutes=14, least=4, tiny=False,
         shows="the same of k = 1, 2, 4, 5 (96, 98.5 % published for k = 2, 4), and seeds of k = 3"),
    networks("vit-small", "resnet18", name="baselines", minutes=12, least=6.5, whole=True,
             shows="ViT-Small and ResNet-18 by ViTRM's recipe and epochs"),
    Job(name="motion", shows="do their steps converge, repair noise and lose rank", minutes=2, offline=True,
        results=motion_results, calls=motion_calls, state=trained, writes=("vitrm/gpu/dynamics/*.json",
                                                                           "vitrm/tiny/dynamics/*.json"),
        carries="the two trained transformers in float16 (39 MiB)"),
    Job(name="stochastic_depth", minutes=120, least=5, results=depth_results, calls=depth_calls, state=depth_state,
        shows="do phases grow even, layers similar and Raptors faithful with the drop-path rate; max-cut against "
        "random phases; untrained, half-trained and overfit networks; the networks that cifar_vit12 is chosen from",
        carries="networks whose Raptors are not all fitted (10 MiB for each moment of each)",
        writes=tuple(f"stochastic_depth/{size}/{what}" for size in ("gpu", "tiny")
                     for what in ("config.json", "networks/*.json", "fits/*/*.json"))),
    Job(name="vitrm_grid", minutes=35, least=2, results=grid_results, calls=grid_calls, state=grid_state,
        shows="what latent depth n and supervision depth N_sup are worth (n = 3, N_sup = 1 published as best), and "
        "whether accuracy holds from batch 64 to 1024",
        carries="the checkpoint of the cell it was in (55 MiB)",
        writes=("vitrm_grid/gpu/*.json", "vitrm_grid/tiny/*.json")),
    fits(False, name="raptor_rest", minutes=60, least=4, tiny=False,
         shows="max-cut against random phases, and the recipe taken apart"),
    fits(True, name="raptor_longer", minutes=7, at_once=1, tiny=False, shows="a fit four times as long"),
    networks(VITRM_NAME, name="vitrm_published", full="published", minutes=130, least=1, only_asked=True, tiny=False,
             carries="its checkpoint (55 MiB)", shows="ViTRM alone, for the published 1000 epochs"),
)  # fmt: skip
