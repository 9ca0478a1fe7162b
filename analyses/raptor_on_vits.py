"""Is a ViT block-recurrent? Raptors of one teacher: k, seeds, partitions, and the recipe taken apart.

Every cell is one fit and its evaluation. Phases come from the images that Raptors are fitted on. A cell is left alone
if its result exists and was asked for alike; a cell that fails is recorded and does not stop the rest. Sizes: `cpu` is
the reduced study (hours on two cores), `gpu` the full one, `tiny` a dry run.

    python -m analyses.raptor_on_vits --train cifar10/train.parquet --test cifar10/test.parquet --photos photos.parquet
    python -m analyses.raptor_on_vits --size gpu --device cuda --minutes 9 …        # in pieces; run it again
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from analyses.cells import attempt, digest_of, recorded, share_of
from analyses.recording import OFFLINE, RESULTS, parser, provenance
from brdyn import load_images, load_model
from brdyn.errors import BrdynError, UsageError
from brdyn.measures import layer_similarity
from brdyn.models import VisionTransformer
from brdyn.phases import Phases, segment
from brdyn.probes import Reading, compare, extract_features, read_classes
from brdyn.probes.linear import PENALTIES
from brdyn.raptor import FitSettings, Raptor, fit_raptor
from brdyn.raptor.fidelity import fidelity
from brdyn.raptor.model import is_raptor, read_config
from brdyn.raptor.partitions import MAXCUT, RANDOM, assign
from brdyn.raptor.recipe import learning_rate
from brdyn.store import read_json, to_json, write_atomically
from brdyn.training import Checkpoints, Session

DRAWS = SEEDS = 3
LADDER_K = 3
LONGER = 4


@dataclass(frozen=True, kw_only=True)
class Size:
    """How large the study is."""

    steps: tuple[int, int]
    batch_size: int
    image_size: int
    fit_images: int
    fidelity_images: int
    photos: int
    photo_size: int
    probe_train: int
    probe_test: int
    precision: str = "bfloat16"
    workers: int | None = 0


SIZES = {
    "tiny": Size(steps=(2, 2), batch_size=4, image_size=28, fit_images=24, fidelity_images=8, photos=2, photo_size=56,
                 probe_train=60, probe_test=40),
    "cpu": Size(steps=(240, 240), batch_size=8, image_size=56, fit_images=10_000, fidelity_images=256, photos=16,
                photo_size=224, probe_train=2000, probe_test=1000),
    "gpu": Size(steps=(2500, 2500), batch_size=64, image_size=112, fit_images=50_000, fidelity_images=2000, photos=800,
                photo_size=224, probe_train=50_000, probe_test=10_000, workers=None),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One fit: how layers share blocks, and what differs from the recipe."""

    name: str
    k: int
    partition: str = MAXCUT
    draw: int = 0
    changes: dict[str, Any] = field(default_factory=dict)

    def assignment(self, phases: Phases) -> list[int]:
        """The block of each layer."""
        return assign(self.partition, phases.with_k(self.k).boundaries, phases.layers, self.draw)


def cells(steps: tuple[int, int]) -> Iterator[Cell]:
    """Every cell of a study with so many steps in each stage, the most telling first."""
    for k in (3, 2, 4, 1, 5):
        yield Cell(name=f"maxcut_k{k}", k=k)
    rungs = [
        Cell(name=f"ladder_{name}", k=LADDER_K, changes=changes) for name, changes in ladder(*steps).items()
    ]
    seeds = [
        Cell(name=f"maxcut_k{LADDER_K}_seed{seed}", k=LADDER_K, changes={"seed": seed})
        for seed in range(1, SEEDS)
    ]
    for draw in range(DRAWS):
        for k in (3, 2, 4):
            for partition in RANDOM:
                yield Cell(name=f"{partition}_k{k}_draw{draw}", k=k, partition=partition, draw=draw)
        yield from rungs if draw == 0 else seeds if draw == 1 else ()
    longer = {"stage1_steps": LONGER * steps[0], "stage2_steps": LONGER * steps[1]}
    yield Cell(name=f"maxcut_k{LADDER_K}_longer", k=LADDER_K, changes=longer)


def ladder(first: int, second: int) -> dict[str, dict[str, Any]]:
    """The published ablations in their order, then others; the whole recipe is the cell `maxcut_k3`."""
    bare = {"depth_scaling": "none", "token_weighting": False, "stage2_steps": 0}
    return {
        "teacher-forcing": {**bare, "teacher_forcing_only": True},
        "annealed": bare,
        "depth-scaling": {**bare, "depth_scaling": "index"},
        "token-weighting": {"stage2_steps": 0},
        "stage1-twice-as-long": {"stage1_steps": 2 * first, "stage2_steps": 0},
        "autonomous": {"depth_scaling": "constant"},
        "cosine-loss": {"loss": "cosine+mse"},
        "no-noise": {"sigma": 0.0},
        "stage2-raised-rate": {"stage2_lr": learning_rate(second)},
    }


class Study:
    """A teacher, its images, and the cells."""

    def __init__(self, choice: argparse.Namespace) -> None:
        self.choice, self.size = choice, SIZES[choice.size]
        size = self.size
        self.folder: Path = choice.out / choice.model.replace("/", "--") / choice.size
        self.teacher = self.load(size.image_size)
        self.train = load_images(choice.train, self.teacher, n=size.fit_images)
        self.test = load_images(choice.test, self.teacher, n=size.fidelity_images)
        self.stream: dict[str, Any] = {"workers": size.workers}
        self._teacher: Reading | None = None
        self.folder.mkdir(parents=True, exist_ok=True)

    def load(self, image_size: int) -> VisionTransformer:
        """The teacher for images of some size."""
        return load_model(
            self.choice.model, weights=self.choice.weights, image_size=image_size, device=self.choice.device
        )

    def phases(self) -> Phases:
        """By max-cut, from the images that Raptors are fitted on; kept in a file."""
        path = self.folder / "phases.json"
        if not path.is_file():
            images = self.train.split(min(1000, len(self.train) // 2), 0)[1]
            assert images is not None
            similarity = layer_similarity(self.teacher, images, replicates=50, **self.stream)
            content = {**segment(similarity).to_dict(), "provenance": self.provenance()}
            write_atomically(path, to_json(content))
        return Phases.from_dict(read_json(path, "phases"))

    def provenance(self) -> dict[str, Any]:
        """Where a cell's numbers come from."""
        return {**provenance("raptor_on_vits", self.choice.device), "teacher": self.teacher.info.to_dict()}

    def settings(self, cell: Cell) -> FitSettings:
        """The recipe of a cell."""
        size = self.size
        shared = {
            "stage1_steps": size.steps[0], "stage2_steps": size.steps[1], "batch_size": size.batch_size,
            "precision": size.precision, "log_every": max(1, size.steps[0] // 12),
            "validate_every": max(1, size.steps[0] // 2), "checkpoint_every": max(1, size.steps[0] // 2),
        }  # fmt: skip
        return FitSettings(**{**shared, **cell.changes})

    def asked(self, cell: Cell, assignment: list[int]) -> dict[str, Any]:
        """Everything that decides a cell's result: its fit, and how it is evaluated."""
        size, choice = self.size, self.choice
        fit = {
            "teacher": self.teacher.info.digest,
            "train": str(choice.train),
            "image_size": size.image_size,
            "fit_images": size.fit_images,
            "assignment": assignment,
            "settings": self.settings(cell).to_dict(),
        }
        evaluation = {
            "test": str(choice.test),
            "photos": str(choice.photos) if self.sees_photos(cell) else None,
            "fidelity_images": size.fidelity_images,
            "photos_used": [size.photos, size.photo_size],
            "probes": [size.probe_train, size.probe_test],
            "penalties": list(PENALTIES),
        }
        return {"fit": fit, "evaluation": evaluation}

    def sees_photos(self, cell: Cell) -> bool:
        """Whether it is evaluated on full-size photographs too."""
        return bool(self.choice.photos) and cell.partition == MAXCUT and not cell.changes

    def read(self, model: VisionTransformer) -> Reading:
        """What probes read from a model, its features taken in the precision of the fits."""
        size, choice = self.size, self.choice
        low = torch.autocast(model.device.type, torch.bfloat16, enabled=size.precision == "bfloat16")
        with low:
            train, test = (
                extract_features(model, load_images(source, model, n=count, seed=1), **self.stream)["model"]
                for source, count in ((choice.train, size.probe_train), (choice.test, size.probe_test))
            )
        return read_classes(train, test, device=model.device)

    def fitted(self, cell: Cell, asked: dict[str, Any]) -> tuple[Raptor, dict[str, Any]]:
        """The Raptor of a cell and how it was fitted: kept from before, or fitted now and kept."""
        kept = self.folder / "raptors" / cell.name
        digest = digest_of(asked)
        if is_raptor(kept) and read_config(kept).get("asked") == digest:
            return Raptor.from_pretrained(kept, self.teacher), read_json(kept / "fit.json", "a fit")
        unfinished = self.folder / "checkpoints" / cell.name
        checkpoints = Checkpoints(unfinished, asked, keep=1)
        try:
            saved = checkpoints.latest()
        except BrdynError:  # damaged, or of other settings
            shutil.rmtree(unfinished)
            saved = None
        settings = self.settings(cell)
        fit = fit_raptor(
            self.teacher, self.train, asked["assignment"], settings,
            session=Session(checkpoints=checkpoints, resume=saved), workers=self.size.workers,
        )  # fmt: skip
        content = {
            "stages": {str(stage): asdict(history) for stage, history in fit.histories.items()},
            "fit_seconds": sum(history.seconds for history in fit.histories.values()),
        }
        kept.mkdir(parents=True, exist_ok=True)
        write_atomically(kept / "fit.json", to_json(content))
        fit.raptor.save_pretrained(kept, asked=digest)
        shutil.rmtree(unfinished, ignore_errors=True)
        return fit.raptor, content

    def run(self, cell: Cell, asked: dict[str, Any]) -> tuple[dict[str, Any], dict[str, pd.DataFrame]]:
        """Fit and evaluate one cell: numbers, and curves by set of images."""
        raptor, content = self.fitted(cell, asked["fit"])
        started = time.perf_counter()
        curves = {"test": fidelity(raptor, self.test, **self.stream).table}
        if self.sees_photos(cell):
            curves["photos"] = self.on_photos(raptor)
        if self._teacher is None:
            self._teacher = self.read(self.teacher)
        probing = compare({"teacher": self._teacher, "raptor": self.read(raptor)})
        return {
            **content,
            "parameters": raptor.info.parameters,
            "teacher_parameters": self.teacher.info.parameters,
            "probing": probing.to_dict(),
            "evaluation_seconds": time.perf_counter() - started,
        }, curves

    def on_photos(self, raptor: Raptor) -> Any:
        """Fidelity at full size: the same blocks between the teacher's embedding and norm for that size."""
        teacher = self.load(self.size.photo_size)
        large = Raptor(teacher, raptor.assignment, raptor.config).to(teacher.device).eval()
        large.shared.load_state_dict(raptor.shared.state_dict())
        images = load_images(self.choice.photos, large, n=self.size.photos)
        return fidelity(large, images, **self.stream).table

    def record(self, cell: Cell, phases: Phases) -> str:
        """Run a cell unless it is there; a word on how it went."""
        path = self.folder / f"{cell.name}.json"
        asked = self.asked(cell, cell.assignment(phases))
        digest = digest_of(asked)
        if recorded(path, digest):
            return "already recorded"
        curves: dict[str, pd.DataFrame] = {}

        def work() -> dict[str, Any]:
            found, own = self.run(cell, asked)
            curves.update(own)
            return found

        content = attempt(work)
        if curves:
            whole = pd.concat(
                [table.assign(images=name) for name, table in curves.items()], ignore_index=True
            )
            write_atomically(path.with_suffix(".parquet"), whole.drop(columns="unit").to_parquet(index=False))
        content = {
            "cell": asdict(cell), "digest": digest, "asked": asked, "size": asdict(self.size), **content,
            "provenance": self.provenance(),
        }  # fmt: skip
        write_atomically(path, to_json(content))
        return content.get("failed") or summary(content, curves["test"])


def summary(content: dict[str, Any], curves: pd.DataFrame) -> str:
    """One line on a cell."""
    r2 = curves.query("statistic == 'r2' and mode == 'autoregressive' and group == 'all'")["mean"]
    kept = {row["probe"]: row["ratio"] for row in content["probing"]["ratios"]}
    return (
        f"R2 of the last layer {r2.iloc[-1]:.3f}, probe accuracy kept {kept['linear']:.1%} (linear) "
        f"{kept['knn']:.1%} (k-NN), {content['fit_seconds']:.0f} + {content['evaluation_seconds']:.0f} s"
    )


def main() -> None:
    """Run the cells that have no result yet."""
    options = parser(__doc__)
    options.add_argument("--train", required=True, help="labelled images to fit Raptors and probes on")
    options.add_argument("--test", required=True, help="labelled images to test them on")
    options.add_argument("--photos", help="full-size photographs, for fidelity alone")
    options.add_argument("--model", default=OFFLINE)
    options.add_argument("--weights", type=Path, help="as in `brdyn phases`")
    options.add_argument("--size", choices=sorted(SIZES), default="cpu")
    options.add_argument("--only", default="", help="cells whose name begins so")
    options.add_argument("--cells", help="these cells alone, by their names: maxcut_k3,maxcut_k2")
    options.add_argument(
        "--share", default="0/1", help="i/n: every n-th cell from the i-th, for n runs side by side"
    )
    options.add_argument("--minutes", type=float, default=float("inf"), help="begin no cell after so long")
    options.set_defaults(out=RESULTS / "raptor")
    choice = options.parse_args()
    started = time.perf_counter()
    try:
        study = Study(choice)
        phases = study.phases()
        first, every = share_of(choice.share)
        chosen = choice.cells.split(",") if choice.cells else []
        unknown = set(chosen) - {cell.name for cell in cells(study.size.steps)}
        if unknown:
            raise UsageError(f"--cells: there is no {', '.join(sorted(unknown))}")
        for cell in islice(cells(study.size.steps), first, None, every):
            if not cell.name.startswith(choice.only) or cell.name not in (chosen or [cell.name]):
                continue
            if time.perf_counter() - started > 60 * choice.minutes:
                print("out of time; run it again to go on")
                break
            print(f"{cell.name}: {study.record(cell, phases)}", flush=True)
    except BrdynError as error:
        options.error(str(error))


if __name__ == "__main__":
    main()
