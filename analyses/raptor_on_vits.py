"""Is a ViT block-recurrent? Raptors of one teacher: k, seeds, partitions, and the recipe taken apart.

Every cell is one fit and its evaluation. Phases come from the images that Raptors are fitted on. A cell is left alone
if its result exists and was asked for alike; a cell that fails is recorded and does not stop the rest. Sizes: `cpu` is
the reduced study (hours on two cores), `long` that of a small teacher, `gpu` the full one, `tiny` a dry run.

    python -m analyses.raptor_on_vits --train cifar10/train.parquet --test cifar10/test.parquet --photos photos.parquet
    python -m analyses.raptor_on_vits --size gpu --device cuda --minutes 9 …        # in pieces; run it again
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from queue import Empty
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from analyses.raptor_cells import HEAD, RAPTOR, TEACHER, answers, curves_of, right_of
from analyses.recording import OFFLINE, Choice
from analyses.study import (
    OutOfTime,
    Study,
    chosen,
    digest_of,
    run_study,
    share_of,
    sizes_of,
    study_parser,
)
from brdyn import BrdynError, Phases, Stream, fit_raptor, layer_similarity, load_images, load_model, segment
from brdyn.classifiers import packaged
from brdyn.classifiers.saved import is_classifier
from brdyn.data import ImageSet
from brdyn.data.image_set import choose
from brdyn.models import VisionTransformer
from brdyn.probes import Reading, compare, extract_features, read_classes
from brdyn.probes.linear import PENALTIES
from brdyn.raptor import FitSettings, Raptor
from brdyn.raptor.fidelity import fidelity
from brdyn.raptor.model import is_raptor, read_config
from brdyn.raptor.partitions import MAXCUT, RANDOM, assign
from brdyn.raptor.recipe import FAST, PUBLISHED, PUBLISHED_LR, learning_rate
from brdyn.store import read_json, to_json, write_atomically
from brdyn.training import Checkpoints, Session
from brdyn.training.settings import MUON

READ = ("asked", "right", "truth", "penalties", "n_train", "classes", "test_images")
HEAD_BATCH = 500
LADDER_K = 3
PATIENCE = 5  # seconds that a process waits for a cell that is handed out
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


def cells(size: SimpleNamespace) -> Iterator[Cell]:
    """Every cell of a study, the most telling first."""
    whole, (first, second) = f"{MAXCUT}_k{LADDER_K}", size.steps
    for recipe in size.recipes:
        name, changes = (MAXCUT, {}) if recipe == PUBLISHED else (recipe, {"recipe": recipe})
        for k in (3, 2, 4, 1, 5):
            yield Cell(name=f"{name}_k{k}", k=k, changes=changes)
        for k, seeds in size.seeds.items():
            for seed in range(1, seeds):
                yield Cell(name=f"{name}_k{k}_seed{seed}", k=k, changes={**changes, "seed": seed})
    for k, draws in size.draws.items():
        for draw in range(draws):
            for partition in RANDOM:
                yield Cell(name=f"{partition}_k{k}_draw{draw}", k=k, partition=partition, draw=draw)
        if k == LADDER_K:
            rungs = ladder(first, second)
            for seed, (name, found) in product(range(size.ladder_seeds), rungs.items()):
                again, seeded = (f"_seed{seed}", {"seed": seed}) if seed else ("", {})
                yield Cell(name=f"ladder_{name}{again}", k=LADDER_K, changes={**found, **seeded})
    for times in size.rates:
        yield Cell(name=f"{whole}_rates{times}", k=LADDER_K, changes=raised(times, first))
    for times, seed in product(size.muon, range(size.seeds.get(LADDER_K, 1))):
        again, seeded = (f"_seed{seed}", {"seed": seed}) if seed else ("", {})
        found = {"recipe": FAST, "optimizer": MUON, **raised(times, first), **seeded}
        yield Cell(name=f"{whole}_muon{times}{again}", k=LADDER_K, changes=found)
    longer = {"stage1_steps": size.longer * first, "stage2_steps": size.longer * second}
    yield Cell(name=f"{whole}_longer", k=LADDER_K, changes=longer)


def raised(times: float, first: int) -> dict[str, float]:
    """So many times the usual learning rates, of a stage 1 of so many steps."""
    return {"lr": times * learning_rate(first), "stage2_lr": times * PUBLISHED_LR}


def names(size: str) -> list[str]:
    return [cell.name for cell in cells(SIZES[size])]


def ladder(first: int, second: int) -> dict[str, dict[str, Any]]:
    """The published ablations in their order, then others; the whole recipe is the cell `maxcut_k3`."""
    bare = {"depth_scaling": "none", "token_weighting": False, "stage2_steps": 0}
    return {
        "teacher-forcing": {**bare, "teacher_forcing_only": True}, "annealed": bare,
        "depth-scaling": {**bare, "depth_scaling": "index"}, "token-weighting": {"stage2_steps": 0},
        "stage1-twice-as-long": {"stage1_steps": 2 * first, "stage2_steps": 0},
        "autonomous": {"depth_scaling": "constant"}, "cosine-loss": {"loss": "cosine+mse"}, "noise": {"sigma": 0.001},
        "stage2-raised-rate": {"stage2_lr": learning_rate(second)},
    }  # fmt: skip


class RaptorStudy(Study[Cell]):
    """A teacher, its images, and the cells."""

    module = "raptor_on_vits"

    def __init__(
        self,
        choice: Choice,
        held: Mapping[str, ImageSet] | None = None,
        alone: AbstractContextManager[Any] | None = None,
    ) -> None:
        super().__init__(choice)
        self.held, self.alone = dict(held or {}), alone or nullcontext()
        self.size = size = SIZES[choice.size]
        self.folder = choice.out / choice.model.replace("/", "--") / choice.size
        self.chosen = set(chosen(choice.only, names(choice.size)))
        self.teacher = load_teacher(choice, size.image_size, choice.device)
        self.train = self.images(choice.train, size.fit_images)
        self.test = self.images(choice.test, size.fidelity_images)
        self.stream = Stream(workers=size.workers)
        self.found = self.phases()

    def images(self, source: str, count: int | None, seed: int = 0) -> ImageSet:
        """Some images as the teacher sees them; decoded once for all cells where the size says so."""
        whole = (
            self.decoded(source) if self.size.in_memory or self.held else load_images(source, self.teacher)
        )
        return (
            whole
            if count is None or count >= len(whole)
            else whole.take(np.asarray(choose(len(whole), count, seed)))
        )

    def decoded(self, source: str) -> ImageSet:
        if source not in self.held:
            self.held[source] = load_images(source, self.teacher).decoded()
        return self.held[source]

    def cells(self) -> Iterator[Cell]:
        return (cell for cell in cells(self.size) if cell.name in self.chosen)

    def name(self, cell: Cell) -> str:
        return cell.name

    def phases(self) -> Phases:
        """By max-cut, from the images that Raptors are fitted on; kept in a file."""
        path = self.folder / "phases.json"
        with self.alone:
            return Phases.from_dict(self.phases_in(path))

    def phases_in(self, path: Path) -> Mapping[str, Any]:
        """The content of a file of phases, which is written where it is not there, or of another teacher or images; one
        of an earlier version says its teacher alone."""
        asked = {
            "teacher": self.teacher.info.digest, "train": str(self.choice.train),
            "image_size": list(self.teacher.info.image_size), "fit_images": self.size.fit_images,
        }  # fmt: skip
        content = read_json(path, "phases") if path.is_file() else {}
        there = (
            content.get("asked") or {**asked, "teacher": content["provenance"]["teacher"]["digest"]}
            if content
            else {}
        )
        if there != asked:
            images = self.train.split(min(1000, len(self.train) // 2), 0)[1]
            assert images is not None
            similarity = layer_similarity(self.teacher, images, replicates=50, stream=self.stream)
            content = {**segment(similarity).to_dict(), "asked": asked, "provenance": self.provenance()}
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, to_json(content))
        return read_json(path, "phases")

    def provenance(self) -> dict[str, Any]:
        return {**super().provenance(), "teacher": self.teacher.info.to_dict()}

    def settings(self, cell: Cell) -> FitSettings:
        """The recipe of a cell."""
        (first, second), half = self.size.steps, max(1, self.size.steps[0] // 2)
        shared = {
            "stage1_steps": first, "stage2_steps": second, "batch_size": self.size.batch_size,
            "precision": self.size.precision, "compile": self.size.compile, "log_every": max(1, first // 12),
            "validate_every": max(1, first // 8), "checkpoint_every": half,
        }  # fmt: skip
        return FitSettings(**{**shared, **cell.changes})

    def asked(self, cell: Cell) -> dict[str, Any]:
        size, choice = self.size, self.choice
        fit = {
            "teacher": self.teacher.info.digest, "train": str(choice.train),
            "image_size": list(self.teacher.info.image_size), "fit_images": size.fit_images,
            "assignment": cell.assignment(self.found), "settings": self.settings(cell).to_dict(),
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
                extract_features(model, self.images(source, count, seed=1), stream=self.stream)["model"]
                for source, count in ((choice.train, size.probe_train), (choice.test, size.probe_test))
            )
            right = (
                head_is_right(model, self.images(choice.test, size.probe_test, seed=1))
                if model.classes
                else None
            )
        reading = read_classes(train, test, device=model.device)
        if right is None:
            return reading
        return replace(reading, hits={**reading.hits, HEAD: right[None]})

    @cached_property
    def teacher_reading(self) -> Reading:
        """What probes read from the teacher; kept in a file, which other processes and runs read."""
        path, size = self.folder / TEACHER, self.size
        asked = {
            "teacher": self.teacher.info.digest, "train": str(self.choice.train), "test": str(self.choice.test),
            "probes": [size.probe_train, size.probe_test], "image_size": list(self.teacher.info.image_size),
        }  # fmt: skip
        with self.alone:
            if (
                path.is_file()
                and (content := read_json(path, "what a teacher is worth", READ))["asked"] == asked
            ):
                hits = {kind: torch.from_numpy(right_of(content, kind)) for kind in content["right"]}
                truth = torch.tensor(content["truth"])
                return Reading(
                    hits, tuple(content["penalties"]), truth, content["n_train"], content["classes"]
                )
            reading = self.read(self.teacher)
            more = {name: getattr(reading, name) for name in ("penalties", "n_train", "classes")}
            content = {"asked": asked, **answers(reading), **more, "truth": reading.truth.tolist()}
            write_atomically(path, to_json({**content, "provenance": self.provenance()}))
        return reading

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
        reading = self.read(raptor)
        probing = compare({"teacher": self.teacher_reading, "raptor": reading})
        whole = pd.concat([table.assign(images=name) for name, table in curves.items()], ignore_index=True)
        write_atomically(curves_of(self.path(cell)), whole.drop(columns="unit").to_parquet(index=False))
        parameters = {
            "parameters": raptor.info.parameters,
            "teacher_parameters": self.teacher.info.parameters,
        }
        seconds = time.perf_counter() - started
        found = {"probing": probing.to_dict(), **answers(reading), "evaluation_seconds": seconds}
        return {**content, **parameters, **found}

    def head(self, cell: Cell, asked: Mapping[str, Any]) -> dict[str, Any]:
        return {**super().head(cell, asked), "cell": asdict(cell), "size": vars(self.size)}

    def on_photos(self, raptor: Raptor) -> pd.DataFrame:
        """Fidelity at full size: the same blocks between the teacher's embedding and norm for that size."""
        teacher = load_teacher(self.choice, self.size.photo_size, self.choice.device)
        large = Raptor(teacher, raptor.assignment, raptor.config).to(teacher.device).eval()
        large.shared.load_state_dict(raptor.shared.state_dict())
        images = load_images(self.choice.photos, large, n=self.size.photos)
        return fidelity(large, images, self.stream).table


def load_teacher(choice: Choice, image_size: int, device: str) -> VisionTransformer:
    """The teacher, for images of some size where it takes others than its own."""
    path = Path(choice.model)
    fixed = choice.model == packaged.NAME or is_classifier(path)
    return load_model(
        choice.model, weights=choice.weights, image_size=None if fixed else image_size, device=device
    )


def side_by_side(choice: Choice) -> None:
    """Cells in several processes on one device, handed out one by one. Images are decoded before there are any."""
    torch.set_num_threads(1)  # threads do not survive a fork
    size = SIZES[choice.size]
    teacher = load_teacher(choice, size.image_size, "cpu")
    held = {source: load_images(source, teacher).decoded() for source in {choice.train, choice.test}}
    fork = get_context("fork")
    left, alone = fork.Queue(), fork.Lock()
    first, every = share_of(choice.share)
    for name in chosen(choice.only, names(choice.size))[first::every]:
        left.put(name)

    def work() -> None:
        study = RaptorStudy(choice, held, alone)
        by_name = {study.name(cell): cell for cell in study.cells()}
        with suppress(Empty, OutOfTime):
            while name := left.get(timeout=PATIENCE):
                print(f"{name}: {study.record(by_name[name])}", flush=True)

    processes = [fork.Process(target=work) for _ in range(choice.at_once)]
    for one in processes:
        one.start()
    for one in processes:
        one.join()
    if failed := sum(one.exitcode != 0 for one in processes):
        raise BrdynError(f"{failed} of {len(processes)} processes failed; run it again for what they left")


def run(choice: Choice) -> None:
    if choice.at_once > 1:
        side_by_side(choice)
    else:
        RaptorStudy(choice).work()


def head_is_right(model: VisionTransformer, images: ImageSet) -> Tensor:
    """Which labelled images a model's own classification head names right, in their order."""
    right = []
    for batch in images.batches(HEAD_BATCH):
        labelled = batch.labelled()
        with torch.no_grad():
            scores = model.logits(model(labelled.images.to(model.device)))
        assert scores is not None
        right.append(scores.argmax(1).cpu() == labelled.labels)
    return torch.cat(right)


OPTIONS = study_parser(__doc__, RAPTOR, sizes=SIZES)
OPTIONS.add_argument("--photos", help="full-size photographs, for fidelity alone")
OPTIONS.add_argument("--model", default=OFFLINE)
OPTIONS.add_argument("--weights", type=Path, help="as in `brdyn phases`")
OPTIONS.add_argument("--at-once", type=int, default=1, help="processes side by side on one device")
main = run_study(run, OPTIONS, __name__)
