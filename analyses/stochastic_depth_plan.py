"""What the stochastic-depth study consists of: networks, moments of their training, and Raptors, from a YAML file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from brdyn.classifiers.architectures import build
from brdyn.classifiers.kept import folder_name
from brdyn.classifiers.recipe import BEST, ClassifierRecipe
from brdyn.errors import UsageError
from brdyn.phases import check_request
from brdyn.raptor import FitSettings
from brdyn.raptor.partitions import MAXCUT, RANDOM, assign

UNTRAINED, MIDDLE, LAST = "untrained", "middle", "last"
NETWORKS, FITS = "networks", "fits"
MOMENTS = (UNTRAINED, MIDDLE, BEST, LAST)


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
    followed_rates: list[float] | None = None
    float16: bool = False

    @classmethod
    def read(cls, path: Path) -> Config:
        """From a YAML file.

        Raises
        ------
        UsageError
            If it cannot be read, or an entry is missing or unknown.
        """
        try:
            found = yaml.safe_load(path.read_text())
        except (OSError, yaml.YAMLError) as error:
            raise UsageError(f"cannot read {str(path)!r} ({' '.join(str(error).split())})") from error
        known = {entry.name for entry in fields(cls)}
        needed = {entry.name for entry in fields(cls) if entry.default is MISSING}
        given = set(found) if isinstance(found, dict) else set()
        if wrong := sorted(map(str, (needed - given) | (given - known))):
            raise UsageError(f"{str(path)!r}: entries that are missing or unknown: {', '.join(wrong)}")
        config = cls(**found)
        try:
            config.check()
        except (TypeError, KeyError, ValueError) as error:  # an entry within an entry
            raise UsageError(f"{str(path)!r} has an entry that makes no sense ({error})") from error
        return config

    def check(self) -> None:
        """Refuse, before any work, what would fail after hours."""
        recipe, network = ClassifierRecipe(**self.training), dict(self.network)
        if not 0 < self.middle < recipe.epochs:
            raise UsageError(f"middle: {self.middle} is not between epoch 0 and {recipe.epochs:g}")
        with torch.device("meta"):
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
        """A network at every moment; before training, those with other p are the same."""
        return [
            Network(p=one.p, seed=one.seed, moment=moment)
            for moment in (BEST, *(moment for moment in MOMENTS if moment != BEST))
            if moment != UNTRAINED or one.p == min(self.drop_path)
        ]

    def followed(self, accuracies: Mapping[Network, float]) -> list[Network]:
        """The other moments of the networks that are followed."""
        rates = self.followed_rates
        if rates is None:
            mean = {
                p: float(np.mean([value for one, value in accuracies.items() if one.p == p]))
                for p in self.drop_path
            }
            least = min(mean)
            rates = [least, *sorted(set(mean) - {least}, key=lambda p: mean[p])[-1:]]
        return [
            moment
            for one in self.networks()
            if one.p in rates
            for moment in self.moments(one)
            if moment.moment != BEST
        ]

    def cells(self, followed: Sequence[Network]) -> Iterator[Cell]:
        """Every Raptor, the most telling first."""
        raptor, networks = self.raptor, self.networks()
        first, *others = sorted(raptor["k"], key=lambda k: (k not in raptor["partitioned"], k))
        for one in networks:
            yield Cell(teacher=one, k=first)
        for one in followed:
            for k in raptor["moments_k"]:
                yield Cell(teacher=one, k=k)
        for k in others:
            for one in networks:
                yield Cell(teacher=one, k=k)
        for draw in range(raptor["draws"]):
            for k in raptor["partitioned"]:
                for one in networks:
                    for partition in RANDOM:
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

    @property
    def path(self) -> str:
        """Of its result, in the folder of the study."""
        return f"{NETWORKS}/{self.name}"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A Raptor to fit."""

    teacher: Network
    k: int
    partition: str = MAXCUT
    draw: int = 0

    @property
    def path(self) -> str:
        """Of its result, in the folder of the study."""
        draw = "" if self.partition == MAXCUT else f"_draw{self.draw}"
        return f"{FITS}/{self.teacher.name}/{self.partition}_k{self.k}{draw}"


def place_of(runs: Path, config: Config, one: Network) -> Path:
    """The folder of a network at a moment, in that of all runs."""
    parts = {UNTRAINED: "0", MIDDLE: f"{config.middle:g}", BEST: BEST}
    return runs / one.run if one.moment == LAST else runs / one.run / folder_name(parts[one.moment])
