"""What the stochastic-depth study consists of, from a YAML file: networks, moments of their training, and Raptors; and
what `analyses.stochastic_depth` recorded of them, as tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import yaml

from analyses.recording import RESULTS
from analyses.study import read_all, recorded_size
from brdyn import Phases, UsageError
from brdyn.blank import on_meta
from brdyn.classifiers import ClassifierRecipe
from brdyn.classifiers.architectures import build
from brdyn.classifiers.kept import folder_name
from brdyn.classifiers.recipe import BEST
from brdyn.phases import check_request
from brdyn.raptor import FitSettings
from brdyn.raptor.baselines import BASELINES
from brdyn.raptor.partitions import MAXCUT, RANDOM, assign
from brdyn.store import read_json

UNTRAINED, MIDDLE, LAST = "untrained", "middle", "last"
NETWORKS, FITS = "networks", "fits"
MOMENTS = (UNTRAINED, MIDDLE, BEST, LAST)
STUDY = RESULTS / "stochastic_depth"
SIZES = ("gpu", "cpu")
MEASURED = ("epoch", "accuracy", "train_accuracy", "mean_similarity", "train_seconds", "images_per_second")
FIT_COLUMNS = ["p", "seed", "moment", "k", "partition", "draw"]
FIT_COLUMNS += ["accuracy", "teacher_accuracy", "kept", "r2", "r2_least", "skill", "seconds"]
CONFIGS = {
    path.stem.removeprefix("stochastic_depth").strip("_") or "gpu": path
    for path in Path(__file__).parent.glob("stochastic_depth*.yaml")
}


@dataclass(frozen=True, kw_only=True)
class Config:
    """A study, as its YAML file says.

    `analyses/stochastic_depth.yaml` says what its entries are; those with a default may be left out.
    """

    name: str
    network: Mapping[str, Any]
    image_size: int
    train_images: int | None
    test_images: int | None
    held_out: int
    drop_path: list[float]
    seeds: int
    training: Mapping[str, Any]
    middle: float
    similarity: Mapping[str, int]
    phases: list[int]
    raptor: Mapping[str, Any]
    followed_rates: Sequence[float] = ()
    float16: bool = False

    @classmethod
    def read(cls, path: Path) -> Config:
        """From a YAML file. Raises UsageError if it cannot be read, or an entry is missing or makes no sense."""
        try:
            config = cls(**yaml.safe_load(path.read_text()))
            config.check()
        except (OSError, yaml.YAMLError) as error:
            raise UsageError(f"cannot read {str(path)!r} ({' '.join(str(error).split())})") from error
        except (TypeError, KeyError, ValueError) as error:  # an entry within an entry too
            raise UsageError(f"{str(path)!r} has an entry that makes no sense, or lacks one ({error})") from error
        return config

    def check(self) -> None:
        """Refuse, before any work, what would fail after hours."""
        recipe, network = ClassifierRecipe(**self.training), dict(self.network)
        if not 0 < self.middle < recipe.epochs:
            raise UsageError(f"middle: {self.middle} is not between epoch 0 and {recipe.epochs:g}")
        with on_meta():
            for p in self.drop_path:
                build(network["model"], 10, self.image_size, drop_path=p, **without(network, "model"))
        raptor, layers = self.raptor, int(network["depth"])
        for k in (*self.phases, *raptor["k"], *raptor["partitioned"], *raptor["moments_k"]):
            check_request(k, layers, name="the network")
        for k in raptor["partitioned"]:
            for partition in RANDOM:  # the last draw, of the phases with the fewest others
                assign(partition, range(1, k), layers, raptor["draws"] - 1)
        FitSettings(**raptor["settings"])
        _ = self.similarity["images"], self.similarity["replicates"], raptor["test_images"]

    def asks_for(self, asked: Mapping[str, Any]) -> bool:
        """Whether a network that was `asked` for so is one of this study."""
        recipe, built = asked["run"]["recipe"], asked["run"]["built"]
        network = {**without(self.network, "model"), "drop_path": built.get("drop_path")}
        return (
            asked["similarity"] == self.similarity
            and asked.get("float16", False) == self.float16
            and asked["run"]["network"] == self.network["model"]
            and built == network
            and asked["run"]["held_out"] == self.held_out
            and f"{self.middle:g}" in asked["run"]["keep"]
            and all(recipe.get(name) == value for name, value in self.training.items())
        )

    def networks(self) -> list[Network]:
        return [Network(p=p, seed=seed) for seed in range(self.seeds) for p in self.drop_path]

    def moments(self, one: Network) -> list[Network]:
        """A network at every moment, its best first; before training, those with other p are the same."""
        others = (UNTRAINED, MIDDLE, LAST) if one.p == min(self.drop_path) else (MIDDLE, LAST)
        return [replace(one, moment=moment) for moment in (BEST, *others)]

    def cells(self) -> list[Network | Cell]:
        """All, network by network."""
        return [cell for one in self.networks() for cell in self.cells_of(one)]

    def cells_of(self, one: Network) -> Iterator[Network | Cell]:
        """A network and all Raptors of it."""
        yield from self.moments(one)
        yield from self.raptors(one)

    def raptors(self, one: Network) -> Iterator[Cell]:
        """The Raptors of a network at every moment, the most telling first; of other moments than its best, where its
        rate is followed."""
        raptor = self.raptor
        first, *others = sorted(raptor["k"], key=lambda k: (k not in raptor["partitioned"], k))
        yield Cell(teacher=one, k=first)
        if one.p in self.followed_rates:
            for moment in self.moments(one)[1:]:
                yield from (Cell(teacher=moment, k=k) for k in raptor["moments_k"])
        yield from (Cell(teacher=one, k=k) for k in others)
        for draw, k, partition in product(range(raptor["draws"]), raptor["partitioned"], RANDOM):
            yield Cell(teacher=one, k=k, partition=partition, draw=draw)


def without(options: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in options.items() if key != name}


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network of the study, at some moment of its training."""

    p: float
    seed: int
    moment: str = BEST

    @property
    def run(self) -> str:
        return f"p{self.p:g}_seed{self.seed}"

    @property
    def name(self) -> str:
        return f"{self.run}_{self.moment}"

    def __str__(self) -> str:
        return f"{NETWORKS}/{self.name}"


@dataclass(frozen=True, kw_only=True)
class Cell:
    teacher: Network
    k: int
    partition: str = MAXCUT
    draw: int = 0

    def __str__(self) -> str:
        draw = "" if self.partition == MAXCUT else f"_draw{self.draw}"
        return f"{FITS}/{self.teacher.name}/{self.partition}_k{self.k}{draw}"


def place_of(runs: Path, config: Config, one: Network) -> Path:
    """The folder of a network at a moment, in that of all runs."""
    parts = {UNTRAINED: "0", MIDDLE: f"{config.middle:g}", BEST: BEST}
    return runs / one.run if one.moment == LAST else runs / one.run / folder_name(parts[one.moment])


class Recorded(NamedTuple):
    """A recorded study: what its configuration asks for and is there.

    `networks` has a row per network and moment, by name: `overfitted` says that from its best epoch to the last
    accuracy rose on training and fell on test images; for each k described there are `boundaries_k`, `evenness_k`,
    `cut_k` (share of the dissimilarity) and `z_k`. `fits` has a row per Raptor: `kept` is the ratio of its accuracy by
    its teacher's head to the teacher's, both above chance (none where the teacher is at chance), `r2` that of all
    tokens at the last layer, autoregressive, `skill` likewise over the best of its baselines (none in records of
    earlier versions), `r2_least` the least along depth, and `curves` has R² by token group and layer. `similarity` and
    `phases` are by network and moment, `validation` (accuracy on held-out images along training) by run; `provenance`
    is that of the newest result, `tested` how many test images accuracies are of.
    """

    networks: pd.DataFrame
    fits: pd.DataFrame
    curves: pd.DataFrame
    similarity: dict[str, np.ndarray]
    phases: dict[str, Phases]
    validation: dict[str, list[dict[str, float]]]
    config: Config
    failed: dict[str, str]
    provenance: dict[str, Any]
    tested: int

    def heading(self, what: str, *measured: str) -> str:
        """Of a picture: the networks, what it shows of them, and on how many images each of `accuracy`, `similarity`,
        `Raptors` and `validation` that it has is measured."""
        config = self.config
        counts = {
            "accuracy": self.tested, "similarity": config.similarity["images"],
            "Raptors": config.raptor["test_images"], "validation": config.held_out,
        }  # fmt: skip
        on = ", ".join(f"{name} on {counts[name]:,}" for name in measured)
        of = f"{config.network['model']} under stochastic depth: {what}"
        return f"{of}\n{on} images of {config.image_size} × {config.image_size} pixels"


def read_study(size: str | None = None, folder: Path = STUDY) -> Recorded:
    """Everything of a study: the one named, or the largest that has a network.

    Results of other configurations, and Raptors of networks that were trained again since, are left out. Raises
    UsageError if there is none.
    """
    home = folder / (size or recorded_size(folder, SIZES, f"{NETWORKS}/*.json") or SIZES[0])
    config = Config(**read_json(home / "config.json", "the configuration of a study"))
    planned = {moment.name for one in config.networks() for moment in config.moments(one)}
    found, failed, newest = read_all(
        home / NETWORKS, sorted(planned), "cell", "asked", wanted=lambda _, content: config.asks_for(content["asked"])
    )
    if not found:
        raise UsageError(f"nothing is recorded in {str(home)!r}; run `python -m analyses.stochastic_depth`")
    teachers = {name: content["digest_of_weights"] for name, content in found.items()}
    paths = sorted((home / FITS).rglob("*.json"))
    done, unfitted, latest = read_all(
        home / FITS, (path.relative_to(home / FITS).with_suffix("").as_posix() for path in paths), "cell", "asked",
        wanted=lambda name, content: content["asked"]["teacher"] == teachers.get(name.split("/")[0]),
    )  # fmt: skip
    phases = {name: Phases.from_dict(content["phases"]) for name, content in found.items()}
    rows = [_network(name, content, phases[name], config.phases) for name, content in found.items()]
    table = pd.DataFrame(rows).set_index("name").sort_values(["moment", "p", "seed"])
    table["overfitted"] = _overfitted(table)
    fits = [_fit(content, 1 / found[name.split("/")[0]]["classes"]) for name, content in done.items()]
    curves = pd.DataFrame([row for content in done.values() for row in _curves(content)])
    return Recorded(
        table,
        pd.DataFrame(fits, columns=FIT_COLUMNS),
        curves,
        {name: np.array(content["similarity"]) for name, content in found.items()},
        phases,
        {name.rpartition("_")[0]: found[name]["validation"] for name in found if found[name]["validation"]},
        config,
        {**failed, **unfitted},
        max(newest, latest, key=lambda one: one.get("date", "")),
        max(content["asked"]["run"]["test"]["images"] for content in found.values()),
    )


def _overfitted(table: pd.DataFrame) -> list[bool]:
    """Of every row, whether its network did by the last epoch."""
    best, last = (
        table[table["moment"] == moment].set_index(["p", "seed"])[["accuracy", "train_accuracy"]]
        for moment in (BEST, LAST)
    )
    change = last - best
    overfitted = set(change.index[(change["accuracy"] < 0) & (change["train_accuracy"] > 0)])
    return [key in overfitted for key in zip(table["p"], table["seed"], strict=True)]


def _network(name: str, content: dict[str, Any], phases: Phases, ks: list[int]) -> dict[str, Any]:
    row = {"name": name, **content["cell"], **{key: content[key] for key in MEASURED}}
    for k in ks:
        found, cut = phases.with_k(k), phases.with_k(k).chosen
        values = {"boundaries": found.boundaries, "evenness": found.evenness, "cut": cut.cut_share, "z": cut.z}
        row |= {f"{key}_{k}": value for key, value in values.items()}
    return row


def _fit(content: dict[str, Any], chance: float) -> dict[str, Any]:
    curves, theirs, ours = content["curves"]["autoregressive"], content["teacher_accuracy"], content["accuracy"]
    deviation = (chance * (1 - chance) / content["n_images"]) ** 0.5
    last = {name: curve["all"][-1] for name, curve in curves.items()}
    skills = [last[f"skill_{name}"] for name in BASELINES if last.get(f"skill_{name}") is not None]
    return {
        **_flat(content["cell"]),
        **{key: content[key] for key in ("accuracy", "teacher_accuracy", "seconds")},
        "kept": (ours - chance) / (theirs - chance) if theirs > chance + 2 * deviation else np.nan,
        "r2": last["r2"], "r2_least": min(curves["r2"]["all"]), "skill": min(skills, default=np.nan),
    }  # fmt: skip


def _flat(cell: dict[str, Any]) -> dict[str, Any]:
    return {**without(cell, "teacher"), **cell["teacher"]}


def _curves(content: dict[str, Any]) -> list[dict[str, Any]]:
    """R² of a Raptor by token group and layer, autoregressive."""
    return [
        {**_flat(content["cell"]), "group": group, "layer": layer, "r2": value}
        for group, values in content["curves"]["autoregressive"]["r2"].items()
        for layer, value in enumerate(values, 1)
    ]
