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
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from analyses.recording import OFFLINE, RESULTS
from analyses.study import Study, command, digest_of, named, sizes_of, study_parser
from brdyn import load_images, load_model
from brdyn.errors import BrdynError
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
from brdyn.results import read_json, to_json
from brdyn.store import write_atomically
from brdyn.training import Checkpoints

RAPTOR = RESULTS / "raptor"
LARGEST_FIRST = ("gpu", "cpu")
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


SIZES = sizes_of("raptor_on_vits", Size)


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


class RaptorStudy(Study[Cell]):
    """A teacher, its images, and the cells."""

    module = "raptor_on_vits"

    def __init__(self, choice: argparse.Namespace) -> None:
        super().__init__(choice)
        self.size = size = SIZES[choice.size]
        self.folder = choice.out / choice.model.replace("/", "--") / choice.size
        names = [cell.name for cell in cells(size.steps) if cell.name.startswith(choice.only)]
        self.chosen = set(names) & set(
            named(choice.cells, (cell.name for cell in cells(size.steps)), "--cells")
        )
        self.teacher = self.load(size.image_size)
        self.train = load_images(choice.train, self.teacher, n=size.fit_images)
        self.test = load_images(choice.test, self.teacher, n=size.fidelity_images)
        self.stream: dict[str, Any] = {"workers": size.workers}
        self._teacher: Reading | None = None
        self.found = self.phases()

    def load(self, image_size: int) -> VisionTransformer:
        """The teacher for images of some size."""
        return load_model(
            self.choice.model, weights=self.choice.weights, image_size=image_size, device=self.choice.device
        )

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
            similarity = layer_similarity(self.teacher, images, replicates=50, **self.stream)
            content = {**segment(similarity).to_dict(), "provenance": self.provenance()}
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, to_json(content))
        return Phases.from_dict(read_json(path, "phases"))

    def provenance(self) -> dict[str, Any]:
        """Where a cell's numbers come from."""
        return {**super().provenance(), "teacher": self.teacher.info.to_dict()}

    def settings(self, cell: Cell) -> FitSettings:
        """The recipe of a cell."""
        size = self.size
        shared = {
            "stage1_steps": size.steps[0], "stage2_steps": size.steps[1], "batch_size": size.batch_size,
            "precision": size.precision, "log_every": max(1, size.steps[0] // 12),
            "validate_every": max(1, size.steps[0] // 2), "checkpoint_every": max(1, size.steps[0] // 2),
        }  # fmt: skip
        return FitSettings(**{**shared, **cell.changes})

    def asked(self, cell: Cell) -> dict[str, Any]:
        size, choice = self.size, self.choice
        fit = {
            "teacher": self.teacher.info.digest,
            "train": str(choice.train),
            "image_size": size.image_size,
            "fit_images": size.fit_images,
            "assignment": cell.assignment(self.found),
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
            self.teacher, self.train, asked["assignment"], settings, checkpoints=checkpoints, resume=saved,
            workers=self.size.workers,
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
        curves = {"test": fidelity(raptor, self.test, **self.stream).table}
        if self.sees_photos(cell):
            curves["photos"] = self.on_photos(raptor)
        if self._teacher is None:
            self._teacher = self.read(self.teacher)
        probing = compare({"teacher": self._teacher, "raptor": self.read(raptor)})
        whole = pd.concat([table.assign(images=name) for name, table in curves.items()], ignore_index=True)
        write_atomically(self.curves(cell), whole.drop(columns="unit").to_parquet(index=False))
        return {
            **content,
            "parameters": raptor.info.parameters,
            "teacher_parameters": self.teacher.info.parameters,
            "probing": probing.to_dict(),
            "evaluation_seconds": time.perf_counter() - started,
        }

    def curves(self, cell: Cell) -> Path:
        """File of its curves."""
        return self.path(cell).with_suffix(".parquet")

    def head(self, cell: Cell, asked: Mapping[str, Any]) -> dict[str, Any]:
        return {**super().head(cell, asked), "cell": asdict(cell), "size": asdict(self.size)}

    def on_photos(self, raptor: Raptor) -> Any:
        """Fidelity at full size: the same blocks between the teacher's embedding and norm for that size."""
        teacher = self.load(self.size.photo_size)
        large = Raptor(teacher, raptor.assignment, raptor.config).to(teacher.device).eval()
        large.shared.load_state_dict(raptor.shared.state_dict())
        images = load_images(self.choice.photos, large, n=self.size.photos)
        return fidelity(large, images, **self.stream).table

    def said(self, content: Mapping[str, Any]) -> str:
        row = _row(content["cell"]["name"], content, pd.read_parquet(self.curves(Cell(**content["cell"]))))
        return (
            f"R2 of the last layer {row['r2']:.3f}, probe accuracy kept {row['kept']:.1%} (linear) "
            f"{row['kept_knn']:.1%} (k-NN), {content['fit_seconds']:.0f} + {content['evaluation_seconds']:.0f} s"
        )


class Cells(NamedTuple):
    """A recorded study.

    Attributes
    ----------
    summary : DataFrame
        One row per cell, by name: `k`, `partition`, `draw`, `varies` (`partition`, `seed` or `recipe`), `r2` of all
        tokens at the last layer (autoregressive), `r2_least` over the layers, `r2_one_step` (mean over layers),
        `kept` and `kept_low`, `kept_high` (linear probe), `kept_knn`, `parameters` (over the teacher's), `steps`,
        `images_seen`, `seconds`.
    fidelity : DataFrame
        All curves: the rows of :class:`brdyn.raptor.fidelity.Fidelity` with `cell` and `images` (`test`, `photos`).
    phases, size, teacher, failed, provenance
        Max-cut; how large the study is; the teacher's accuracy by probe; of the newest cell.
    """

    summary: pd.DataFrame
    fidelity: pd.DataFrame
    phases: Phases
    size: dict[str, Any]
    teacher: dict[str, float]
    failed: dict[str, str]
    provenance: dict[str, Any]


def read_cells(size: str | None = None, model: str = OFFLINE, folder: Path = RAPTOR) -> Cells:
    """Every cell of a study: the one named, or the largest that has its main fits (max-cut, k = 2 to 4).

    Raises
    ------
    UsageError
        If there is none.
    """
    place = folder / model.replace("/", "--")
    there = [
        one for one in LARGEST_FIRST if all((place / one / f"maxcut_k{k}.json").is_file() for k in (2, 3, 4))
    ]
    home = place / (size or (there or LARGEST_FIRST)[0])
    phases = Phases.from_dict(read_json(home / "phases.json", "the phases of a Raptor study"))
    rows, curves, failed = [], [], {}
    newest: dict[str, Any] = {}
    for path in sorted(home.glob("*.json")):
        if path.name == "phases.json":
            continue
        cell = read_json(path, "a cell of a Raptor study", ("cell", "asked"))
        if "failed" in cell:
            failed[path.stem] = cell["failed"]
            continue
        curves.append(pd.read_parquet(path.with_suffix(".parquet")).assign(cell=path.stem))
        rows.append(_row(path.stem, cell, curves[-1]))
        newest = max(newest, cell, key=lambda one: one["provenance"]["date"] if one else "")
    accuracy = {
        row["probe"]: row["accuracy"]
        for row in (newest["probing"]["summary"] if newest else ())
        if row["model"] == "teacher"
    }
    return Cells(
        pd.DataFrame(rows).set_index("name") if rows else pd.DataFrame(),
        pd.concat(curves, ignore_index=True) if curves else pd.DataFrame(),
        phases,
        newest.get("size", {}),
        accuracy,
        failed,
        newest.get("provenance", {}),
    )


def _row(name: str, content: Mapping[str, Any], curves: pd.DataFrame) -> dict[str, Any]:
    cell, settings = content["cell"], content["asked"]["fit"]["settings"]
    table = curves.query("images == 'test' and statistic == 'r2' and group == 'all'")
    r2 = table.set_index(["mode", "layer"])["mean"]
    kept = {row["probe"]: row for row in content["probing"]["ratios"]}
    steps = settings["stage1_steps"] + settings["stage2_steps"]
    seeded = set(cell["changes"]) == {"seed"}
    varies = "seed" if seeded else "recipe" if cell["changes"] else "partition"
    return {
        "name": name,
        "k": cell["k"],
        "partition": cell["partition"],
        "draw": cell["draw"],
        "varies": varies,
        "r2": float(r2["autoregressive"].iloc[-1]),
        "r2_least": float(r2["autoregressive"].min()),
        "r2_one_step": float(np.mean(r2["one-step"])),
        "kept": kept["linear"]["ratio"],
        "kept_low": kept["linear"]["low"],
        "kept_high": kept["linear"]["high"],
        "kept_knn": kept["knn"]["ratio"],
        "parameters": content["parameters"] / content["teacher_parameters"],
        "steps": steps,
        "images_seen": steps * settings["batch_size"],
        "seconds": content["fit_seconds"] + content["evaluation_seconds"],
    }


def main() -> None:
    """Run the cells that have no result yet."""
    options = study_parser(__doc__, RAPTOR)
    options.add_argument("--photos", help="full-size photographs, for fidelity alone")
    options.add_argument("--model", default=OFFLINE)
    options.add_argument("--weights", type=Path, help="as in `brdyn phases`")
    options.add_argument("--size", choices=sorted(SIZES), default="cpu")
    options.add_argument("--only", default="", help="cells whose name begins so")
    options.add_argument("--cells", help="these cells alone, by their names: maxcut_k3,maxcut_k2")
    command(RaptorStudy, options)


if __name__ == "__main__":
    main()
