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
from collections.abc import Callable, Iterator, Mapping
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

from analyses.raptor_cells import HEAD, PHASES, RAPTOR, TEACHER, answers, right_of
from analyses.recording import OFFLINE, Choice
from analyses.study import OutOfTime, Study, chosen, digest_of, run_study, share_of, sizes_of, study_parser
from brdyn import BrdynError, Phases, Stream, fit_raptor, layer_similarity, load_images, load_model, segment
from brdyn.classifiers import packaged
from brdyn.classifiers.saved import is_classifier
from brdyn.data import ImageSet
from brdyn.data.image_set import choose
from brdyn.models import VisionTransformer
from brdyn.probes import Reading, compare, extract_features, read_classes
from brdyn.probes.linear import PENALTIES
from brdyn.raptor import FitSettings, Raptor, fit_options
from brdyn.raptor.fidelity import fidelity
from brdyn.raptor.model import is_raptor, read_config
from brdyn.raptor.partitions import MAXCUT, RANDOM, assign
from brdyn.raptor.recipe import FAST, PUBLISHED, PUBLISHED_LR, learning_rate
from brdyn.store import read_json, to_json, write_atomically
from brdyn.training import Checkpoints, Session
from brdyn.training.settings import MUON

HEAD_BATCH = 500
LADDER_K = 3
PATIENCE = 5  # seconds that a process waits for a cell that is handed out
SIZES = sizes_of("raptor_on_vits")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One fit: how layers share blocks, and what differs from the recipe."""

    name: str
    k: int = LADDER_K
    partition: str = MAXCUT
    draw: int = 0
    changes: dict[str, Any] = field(default_factory=dict)

    def assignment(self, phases: Phases) -> list[int]:
        """The block of each layer."""
        return assign(self.partition, phases.with_k(self.k).boundaries, phases.layers, self.draw)

    def seeded(self, seed: int) -> Cell:
        """This fit from another seed, which its name says; from 0, the usual one, it is this one."""
        changes = {**self.changes, "seed": seed}
        return replace(self, name=f"{self.name}_seed{seed}", changes=changes) if seed else self

    def __str__(self) -> str:
        return self.name


def cells(size: SimpleNamespace) -> Iterator[Cell]:
    """Every cell of a study, the most telling first."""
    whole, (first, second) = f"{MAXCUT}_k{LADDER_K}", size.steps
    for recipe in size.recipes:
        name, changes = (MAXCUT, {}) if recipe == PUBLISHED else (recipe, {"recipe": recipe})
        by_k = {k: Cell(name=f"{name}_k{k}", k=k, changes=changes) for k in (3, 2, 4, 1, 5)}
        yield from by_k.values()
        yield from (by_k[k].seeded(seed) for k, seeds in size.seeds.items() for seed in range(1, seeds))
    for k, draws in size.draws.items():
        for draw, name in product(range(draws), RANDOM):
            yield Cell(name=f"{name}_k{k}_draw{draw}", k=k, partition=name, draw=draw)
        if k == LADDER_K:
            rungs = [Cell(name=f"ladder_{name}", changes=one) for name, one in ladder(first, second).items()]
            yield from (rung.seeded(seed) for seed in range(size.ladder_seeds) for rung in rungs)
    for times in size.rates:
        yield Cell(name=f"{whole}_rates{times}", changes=raised(times, first))
    for times in size.muon:
        fit = {"recipe": FAST, "optimizer": MUON, **raised(times, first)}
        by_muon = Cell(name=f"{whole}_muon{times}", changes=fit)
        yield from map(by_muon.seeded, range(size.seeds.get(LADDER_K, 1)))
    longer = {"stage1_steps": size.longer * first, "stage2_steps": size.longer * second}
    yield Cell(name=f"{whole}_longer", changes=longer)


def raised(times: float, first: int) -> dict[str, float]:
    """So many times the usual learning rates, of a stage 1 of so many steps."""
    return {"lr": times * learning_rate(first), "stage2_lr": times * PUBLISHED_LR}


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
    """A teacher, its images, and the cells. Where several processes do them, `held` are images that are decoded, and
    `alone` is what one holds while it makes what all read."""

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
        self.teacher = load_teacher(choice, size.image_size, choice.device)
        self.train = self.images(choice.train, size.fit_images)
        self.test = self.images(choice.test, size.fidelity_images)
        self.stream = Stream(workers=size.workers)
        self.phases = Phases.from_dict(self.kept(PHASES, self.fitted_on(), self.found_phases))

    def images(self, source: str, count: int | None, seed: int = 0) -> ImageSet:
        """Some images as the teacher sees them; decoded once for all cells where the size says so."""
        if not (self.size.in_memory or self.held):
            return load_images(source, self.teacher, n=count, seed=seed)
        if source not in self.held:
            self.held[source] = load_images(source, self.teacher).decoded()
        whole = self.held[source]
        return whole.take(np.asarray(choose(len(whole), count, seed)))

    @classmethod
    def planned(cls, size: str) -> list[Cell]:
        return list(cells(SIZES[size]))

    def provenance(self) -> dict[str, Any]:
        return {**super().provenance(), "teacher": self.teacher.info.to_dict()}

    def fitted_on(self) -> dict[str, Any]:
        """What all fits share."""
        return {
            "teacher": self.teacher.info.digest, "train": str(self.choice.train),
            "image_size": list(self.teacher.info.image_size), "fit_images": self.size.fit_images,
        }  # fmt: skip

    def kept(self, file: str, asked: Mapping[str, Any], make: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """What a file has, which other processes and runs read: made where it is not there, or of another teacher or
        images; one of an earlier version says its teacher alone."""
        path = self.folder / file
        with self.alone:
            before = read_json(path, "what a study keeps", ("provenance",)) if path.is_file() else {}
            earlier = {**asked, "teacher": before["provenance"]["teacher"]["digest"]} if before else None
            if before.get("asked", earlier) != asked:
                path.parent.mkdir(parents=True, exist_ok=True)
                about = {"asked": asked, "provenance": self.provenance()}
                write_atomically(path, to_json({**make(), **about}))
            return read_json(path, "what a study keeps")

    def found_phases(self) -> dict[str, Any]:
        """By max-cut, from images that Raptors are fitted on."""
        images = self.train.some(min(1000, len(self.train) // 2), 0)
        return segment(layer_similarity(self.teacher, images, replicates=50, stream=self.stream)).to_dict()

    def settings(self, cell: Cell) -> FitSettings:
        (first, second), half = self.size.steps, max(1, self.size.steps[0] // 2)
        shared = {
            "stage1_steps": first, "stage2_steps": second, "batch_size": self.size.batch_size,
            "precision": self.size.precision, "compile": self.size.compile, "log_every": max(1, first // 12),
            "validate_every": max(1, first // 8), "checkpoint_every": half,
        }  # fmt: skip
        return FitSettings(**{**shared, **cell.changes})

    def asked(self, cell: Cell) -> dict[str, Any]:
        size, choice = self.size, self.choice
        settings = self.settings(cell).to_dict()
        fit = {**self.fitted_on(), "assignment": cell.assignment(self.phases), "settings": settings}
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
        """What probes read from a model, its features taken in the precision of the fits; and its own head, if any."""
        sources = ((self.choice.train, self.size.probe_train), (self.choice.test, self.size.probe_test))
        train, test = (self.images(source, count, seed=1) for source, count in sources)
        with torch.autocast(model.device.type, torch.bfloat16, enabled=self.size.precision == "bfloat16"):
            features = [extract_features(model, one, stream=self.stream)["model"] for one in (train, test)]
            own = {HEAD: head_is_right(model, test)[None]} if model.classes else {}
        reading = read_classes(*features, device=model.device)
        return replace(reading, hits={**reading.hits, **own})

    @cached_property
    def teacher_reading(self) -> Reading:
        asked = {
            "teacher": self.teacher.info.digest, "train": str(self.choice.train), "test": str(self.choice.test),
            "probes": [self.size.probe_train, self.size.probe_test], "image_size": list(self.teacher.info.image_size),
        }  # fmt: skip

        def make() -> dict[str, Any]:
            reading = self.read(self.teacher)
            more = {name: getattr(reading, name) for name in ("penalties", "n_train", "classes")}
            return {**answers(reading), **more, "truth": reading.truth.tolist()}

        found = self.kept(TEACHER, asked, make)
        hits = {kind: torch.from_numpy(right_of(found, kind)) for kind in found["right"]}
        penalties, truth = tuple(found["penalties"]), torch.tensor(found["truth"])
        return Reading(hits, penalties, truth, found["n_train"], found["classes"])

    def fitted(self, cell: Cell, asked: dict[str, Any]) -> tuple[Raptor, dict[str, Any]]:
        """The Raptor of a cell and how it was fitted: kept from before, or fitted now and kept."""
        kept, digest = self.folder / "raptors" / cell.name, digest_of(asked)
        if is_raptor(kept) and read_config(kept).get("asked") == digest:
            return Raptor.from_pretrained(kept, self.teacher), read_json(kept / "fit.json", "a fit")
        unfinished = self.folder / "checkpoints" / cell.name
        settings = self.settings(cell)
        options = fit_options(self.teacher, self.train, asked["assignment"], settings)
        checkpoints = Checkpoints(unfinished, options, keep=1)
        try:
            saved = checkpoints.latest()
        except BrdynError:  # damaged, or of other settings
            shutil.rmtree(unfinished)
            saved = None
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
        write_atomically(self.path(cell).with_suffix(".parquet"), whole.drop(columns="unit").to_parquet(index=False))
        return {
            **content, "parameters": raptor.info.parameters, "teacher_parameters": self.teacher.info.parameters,
            "probing": probing.to_dict(), **answers(reading), "evaluation_seconds": time.perf_counter() - started,
        }  # fmt: skip

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
    return load_model(choice.model, weights=choice.weights, image_size=None if fixed else image_size, device=device)


def side_by_side(choice: Choice) -> None:
    """Cells in several processes on one device, handed out one by one. Images are decoded before there are any."""
    torch.set_num_threads(1)  # threads do not survive a fork
    teacher = load_teacher(choice, SIZES[choice.size].image_size, "cpu")
    held = {source: load_images(source, teacher).decoded() for source in {choice.train, choice.test}}
    fork = get_context("fork")
    left, alone = fork.Queue(), fork.Lock()
    first, every = share_of(choice.share)
    for cell in chosen(choice.only, RaptorStudy.planned(choice.size))[first::every]:
        left.put(cell)

    def work() -> None:
        study = RaptorStudy(choice, held, alone)
        with suppress(Empty, OutOfTime):
            while cell := left.get(timeout=PATIENCE):
                print(f"{cell}: {study.record(cell)}", flush=True)

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
STUDY = RaptorStudy
main = run_study(run, OPTIONS, __name__)
