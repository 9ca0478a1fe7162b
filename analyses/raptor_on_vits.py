"""Is a ViT block-recurrent? Raptors of one teacher: k, seeds, partitions, and the recipe taken apart.

Every cell is one fit and its evaluation. Phases come from the images that Raptors are fitted on. A cell is left alone
if its result exists and was asked for alike; a cell that fails is recorded and does not stop the rest. Sizes: `cpu` is
the reduced study (hours on two cores), `gpu` the full one, `tiny` a dry run.

    python -m analyses.raptor_on_vits --train cifar10/train.parquet --test cifar10/test.parquet --photos photos.parquet
    python -m analyses.raptor_on_vits --size gpu --device cuda --minutes 9 …        # in pieces; run it again
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from analyses.recording import OFFLINE, RESULTS, Choice
from analyses.study import Study, chosen, digest_of, read_all, run_study, sizes_of, study_parser
from brdyn import BrdynError, Phases, Stream, fit_raptor, layer_similarity, load_images, load_model, segment
from brdyn.models import VisionTransformer
from brdyn.probes import Reading, compare, extract_features, read_classes
from brdyn.probes.linear import PENALTIES
from brdyn.raptor import FitSettings, Raptor
from brdyn.raptor.fidelity import fidelity
from brdyn.raptor.model import is_raptor, read_config
from brdyn.raptor.partitions import MAXCUT, RANDOM, assign
from brdyn.raptor.recipe import learning_rate
from brdyn.store import read_json, to_json, write_atomically
from brdyn.training import Checkpoints, Session

RAPTOR = RESULTS / "raptor"
LARGEST_FIRST = ("gpu", "cpu")
DRAWS = SEEDS = 3
LADDER_K = 3
LONGER = 4
SIZES = sizes_of("raptor_on_vits")


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
    whole = f"maxcut_k{LADDER_K}"
    rungs = [Cell(name=f"ladder_{name}", k=LADDER_K, changes=found) for name, found in ladder(*steps).items()]
    seeds = [Cell(name=f"{whole}_seed{seed}", k=LADDER_K, changes={"seed": seed}) for seed in range(1, SEEDS)]
    for draw in range(DRAWS):
        for k in (3, 2, 4):
            for partition in RANDOM:
                yield Cell(name=f"{partition}_k{k}_draw{draw}", k=k, partition=partition, draw=draw)
        yield from rungs if draw == 0 else seeds if draw == 1 else ()
    longer = {"stage1_steps": LONGER * steps[0], "stage2_steps": LONGER * steps[1]}
    yield Cell(name=f"{whole}_longer", k=LADDER_K, changes=longer)


def names(size: str) -> list[str]:
    return [cell.name for cell in cells(SIZES[size].steps)]


def ladder(first: int, second: int) -> dict[str, dict[str, Any]]:
    """The published ablations in their order, then others; the whole recipe is the cell `maxcut_k3`."""
    bare = {"depth_scaling": "none", "token_weighting": False, "stage2_steps": 0}
    return {
        "teacher-forcing": {**bare, "teacher_forcing_only": True}, "annealed": bare,
        "depth-scaling": {**bare, "depth_scaling": "index"}, "token-weighting": {"stage2_steps": 0},
        "stage1-twice-as-long": {"stage1_steps": 2 * first, "stage2_steps": 0},
        "autonomous": {"depth_scaling": "constant"}, "cosine-loss": {"loss": "cosine+mse"}, "no-noise": {"sigma": 0.0},
        "stage2-raised-rate": {"stage2_lr": learning_rate(second)},
    }  # fmt: skip


class RaptorStudy(Study[Cell]):
    """A teacher, its images, and the cells."""

    module = "raptor_on_vits"

    def __init__(self, choice: Choice) -> None:
        super().__init__(choice)
        self.size = size = SIZES[choice.size]
        self.folder = choice.out / choice.model.replace("/", "--") / choice.size
        self.chosen = set(chosen(choice.only, names(choice.size)))
        self.teacher = self.load(size.image_size)
        self.train = load_images(choice.train, self.teacher, n=size.fit_images)
        self.test = load_images(choice.test, self.teacher, n=size.fidelity_images)
        self.stream = Stream(workers=size.workers)
        self.found = self.phases()

    def load(self, image_size: int) -> VisionTransformer:
        """The teacher for images of some size."""
        choice = self.choice
        return load_model(choice.model, weights=choice.weights, image_size=image_size, device=choice.device)

    def cells(self) -> Iterator[Cell]:
        return (cell for cell in cells(self.size.steps) if cell.name in self.chosen)

    def name(self, cell: Cell) -> str:
        return cell.name

    def phases(self) -> Phases:
        """By max-cut, from the images that Raptors are fitted on; kept in a file."""
        path = self.folder / "phases.json"
        if not path.is_file():
            images = self.train.split(min(1000, len(self.train) // 2), 0)[1]
            assert images is not None
            similarity = layer_similarity(self.teacher, images, replicates=50, stream=self.stream)
            content = {**segment(similarity).to_dict(), "provenance": self.provenance()}
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, to_json(content))
        return Phases.from_dict(read_json(path, "phases"))

    def provenance(self) -> dict[str, Any]:
        return {**super().provenance(), "teacher": self.teacher.info.to_dict()}

    def settings(self, cell: Cell) -> FitSettings:
        """The recipe of a cell."""
        (first, second), half = self.size.steps, max(1, self.size.steps[0] // 2)
        shared = {
            "stage1_steps": first, "stage2_steps": second, "batch_size": self.size.batch_size,
            "precision": self.size.precision, "compile": self.size.compile, "log_every": max(1, first // 12),
            "validate_every": half, "checkpoint_every": half,
        }  # fmt: skip
        return FitSettings(**{**shared, **cell.changes})

    def asked(self, cell: Cell) -> dict[str, Any]:
        size, choice = self.size, self.choice
        fit = {
            "teacher": self.teacher.info.digest, "train": str(choice.train), "image_size": size.image_size,
            "fit_images": size.fit_images, "assignment": cell.assignment(self.found),
            "settings": self.settings(cell).to_dict(),
        }  # fmt: skip
        evaluation = {
            "test": str(choice.test), "photos": str(choice.photos) if self.sees_photos(cell) else None,
            "fidelity_images": size.fidelity_images, "photos_used": [size.photos, size.photo_size],
            "probes": [size.probe_train, size.probe_test], "penalties": list(PENALTIES),
        }  # fmt: skip
        return {"fit": fit, "evaluation": evaluation}

    def sees_photos(self, cell: Cell) -> bool:
        """Whether it is evaluated on full-size photographs too."""
        return bool(self.choice.photos) and cell.partition == MAXCUT and not cell.changes

    def read(self, model: VisionTransformer) -> Reading:
        """What probes read from a model, its features taken in the precision of the fits."""
        size, choice = self.size, self.choice
        with torch.autocast(model.device.type, torch.bfloat16, enabled=size.precision == "bfloat16"):
            train, test = (
                extract_features(model, load_images(source, model, n=count, seed=1), stream=self.stream)[
                    "model"
                ]
                for source, count in ((choice.train, size.probe_train), (choice.test, size.probe_test))
            )
        return read_classes(train, test, device=model.device)

    @cached_property
    def teacher_reading(self) -> Reading:
        """What probes read from the teacher."""
        return self.read(self.teacher)

    def fitted(self, cell: Cell, asked: dict[str, Any]) -> tuple[Raptor, dict[str, Any]]:
        """The Raptor of a cell and how it was fitted: kept from before, or fitted now and kept."""
        kept, digest = self.folder / "raptors" / cell.name, digest_of(asked)
        if is_raptor(kept) and read_config(kept).get("asked") == digest:
            return Raptor.from_pretrained(kept, self.teacher), read_json(kept / "fit.json", "a fit")
        unfinished = self.folder / "checkpoints" / cell.name
        checkpoints = Checkpoints(unfinished, asked, keep=1)
        try:
            saved = checkpoints.latest()
        except BrdynError:  # damaged, or of other settings
            shutil.rmtree(unfinished)
            saved = None
        fit = fit_raptor(
            self.teacher, self.train, asked["assignment"], self.settings(cell),
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

    def run(self, cell: Cell, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Fit and evaluate one cell; its curves go beside its numbers."""
        raptor, content = self.fitted(cell, asked["fit"])
        started = time.perf_counter()
        curves = {"test": fidelity(raptor, self.test, self.stream).table}
        if self.sees_photos(cell):
            curves["photos"] = self.on_photos(raptor)
        probing = compare({"teacher": self.teacher_reading, "raptor": self.read(raptor)})
        whole = pd.concat([table.assign(images=name) for name, table in curves.items()], ignore_index=True)
        write_atomically(curves_of(self.path(cell)), whole.drop(columns="unit").to_parquet(index=False))
        parameters = {
            "parameters": raptor.info.parameters,
            "teacher_parameters": self.teacher.info.parameters,
        }
        seconds = time.perf_counter() - started
        return {**content, **parameters, "probing": probing.to_dict(), "evaluation_seconds": seconds}

    def head(self, cell: Cell, asked: Mapping[str, Any]) -> dict[str, Any]:
        return {**super().head(cell, asked), "cell": asdict(cell), "size": vars(self.size)}

    def on_photos(self, raptor: Raptor) -> pd.DataFrame:
        """Fidelity at full size: the same blocks between the teacher's embedding and norm for that size."""
        teacher = self.load(self.size.photo_size)
        large = Raptor(teacher, raptor.assignment, raptor.config).to(teacher.device).eval()
        large.shared.load_state_dict(raptor.shared.state_dict())
        images = load_images(self.choice.photos, large, n=self.size.photos)
        return fidelity(large, images, self.stream).table


def curves_of(path: Path) -> Path:
    """The file of a cell's curves, beside its own."""
    return path.with_suffix(".parquet")


class Cells(NamedTuple):
    """A recorded study.

    `summary` has a row per cell, by name: `varies` is `partition`, `seed` or `recipe`; `r2` of all tokens at the last
    layer (autoregressive), `r2_least` over the layers, `r2_one_step` (mean over layers); `kept` of a linear probe's
    accuracy with its interval, `kept_knn`; `parameters` over the teacher's. `fidelity`: all curves, as
    :class:`brdyn.raptor.fidelity.Fidelity` has them, with `cell` and `images` (`test`, `photos`). `phases` by max-cut,
    `teacher`: its accuracy by probe; `size`, `provenance`: of the newest cell.
    """

    summary: pd.DataFrame
    fidelity: pd.DataFrame
    phases: Phases
    size: dict[str, Any]
    teacher: dict[str, float]
    failed: dict[str, str]
    provenance: dict[str, Any]


def read_cells(size: str | None = None, model: str = OFFLINE, folder: Path = RAPTOR) -> Cells:
    """Every cell of a study: the one named, or the largest that has its main fits (max-cut, k = 2 to 4). Raises
    UsageError if there is none."""
    place = folder / model.replace("/", "--")
    there = [
        one for one in LARGEST_FIRST if all((place / one / f"maxcut_k{k}.json").is_file() for k in (2, 3, 4))
    ]
    home = place / (size or (there or LARGEST_FIRST)[0])
    phases = Phases.from_dict(read_json(home / "phases.json", "the phases of a Raptor study"))
    files = {path.stem: path for path in sorted(home.glob("*.json")) if path.name != "phases.json"}
    done, failed, newest = read_all(files, ("cell", "asked"))
    curves = {name: pd.read_parquet(curves_of(files[name])) for name in done}
    last: dict[str, Any] = max(done.values(), key=lambda one: one["provenance"]["date"], default={})
    probed = last["probing"]["summary"] if last else []
    summary = pd.DataFrame([_row(name, content, curves[name]) for name, content in done.items()])
    fidelity = [table.assign(cell=name) for name, table in curves.items()]
    return Cells(
        summary.set_index("name") if done else summary,
        pd.concat(fidelity, ignore_index=True) if done else pd.DataFrame(),
        phases, last.get("size", {}), {row["probe"]: row["accuracy"] for row in probed if row["model"] == "teacher"},
        failed, newest,
    )  # fmt: skip


def _row(name: str, content: Mapping[str, Any], curves: pd.DataFrame) -> dict[str, Any]:
    cell, settings = content["cell"], content["asked"]["fit"]["settings"]
    table = curves.query("images == 'test' and statistic == 'r2' and group == 'all'")
    r2 = table.set_index(["mode", "layer"])["mean"]
    kept = {row["probe"]: row for row in content["probing"]["ratios"]}
    steps = settings["stage1_steps"] + settings["stage2_steps"]
    varies = "seed" if set(cell["changes"]) == {"seed"} else "recipe" if cell["changes"] else "partition"
    return {
        "name": name, "k": cell["k"], "partition": cell["partition"], "draw": cell["draw"], "varies": varies,
        "r2": float(r2["autoregressive"].iloc[-1]), "r2_least": float(r2["autoregressive"].min()),
        "r2_one_step": float(np.mean(r2["one-step"])), "kept": kept["linear"]["ratio"],
        "kept_low": kept["linear"]["low"], "kept_high": kept["linear"]["high"], "kept_knn": kept["knn"]["ratio"],
        "parameters": content["parameters"] / content["teacher_parameters"], "steps": steps,
        "images_seen": steps * settings["batch_size"],
        "seconds": content["fit_seconds"] + content["evaluation_seconds"],
    }  # fmt: skip


OPTIONS = study_parser(__doc__, RAPTOR, sizes=SIZES)
OPTIONS.add_argument("--photos", help="full-size photographs, for fidelity alone")
OPTIONS.add_argument("--model", default=OFFLINE)
OPTIONS.add_argument("--weights", type=Path, help="as in `brdyn phases`")
main = run_study(RaptorStudy, OPTIONS, __name__)
