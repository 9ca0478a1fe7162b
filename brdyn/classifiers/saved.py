"""A trained classifier, and how it is kept on disk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from brdyn import runtime
from brdyn.arguments import checked
from brdyn.checked_json import ANY_SIZE, Range, shown, take
from brdyn.checked_json import build as build_declared
from brdyn.classifiers.architectures import Architecture, architecture_of, build
from brdyn.classifiers.augment import normalised
from brdyn.classifiers.config import MOST, MOST_STEPS
from brdyn.compared import Compared
from brdyn.errors import UsageError
from brdyn.models.request import in_float32
from brdyn.store import pretrained
from brdyn.store.shared_tensors import each_once

CHANNELS = 3
MOST_PIXELS = MOST["image_size"]

KIND = "classifier"


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What a classifier's loader needs of how it was trained: recursion steps, and how many were supervised."""

    steps: Annotated[int, Range(1, MOST_STEPS)] = 1
    n_sup: Annotated[int, Range(1, MOST_STEPS)] = 1


@dataclass(frozen=True, kw_only=True)
class SavedConfig:
    """The entries of a classifier's config.json that it takes to build it again."""

    digest: str
    network: str
    options: Mapping[str, Any]
    classes: tuple[str, ...]
    image_size: Annotated[int, Range(1, MOST_PIXELS)]
    mean: tuple[float, ...]
    std: tuple[Annotated[float, Range(1e-6, 1e6)], ...]

    def __post_init__(self) -> None:
        """Refuse what no classifier has."""
        if not self.classes:
            raise UsageError("there are no classes")
        twice = [name for name, count in Counter(self.classes).items() if count > 1]
        if twice:
            raise UsageError(f"class {shown(twice[0])} comes twice")
        if len(self.mean) != CHANNELS or len(self.std) != CHANNELS:
            raise UsageError(f"mean and std have {len(self.mean)} and {len(self.std)} numbers instead of {CHANNELS}")
        declared = {f"{name}?": hint for name, hint in architecture_of(self.network).options().items()}
        options = take(self.options, declared, "options", ANY_SIZE)
        object.__setattr__(self, "options", options)

    def make(self) -> nn.Module:
        """The network, untrained."""
        return build(self.network, len(self.classes), self.image_size, **self.options)


REBUILT = tuple(field.name for field in fields(SavedConfig) if field.name != "digest")


@dataclass(frozen=True, eq=False, repr=False)
class Classifier(Compared):
    """A network and what its images have to look like.

    Attributes
    ----------
    name : str
        Of the network: one of :data:`brdyn.classifiers.architectures.ARCHITECTURES`.
    network : nn.Module
    names : tuple of str
        Of the classes.
    image_size : int
    mean, std : tuple of float
        Of each channel, of values from 0 to 1.
    options : dict
        What else the network was built with.
    digest : str
        SHA-256 of the weights file; empty before it is written.

    Examples
    --------
    >>> from brdyn.classifiers import Classifier
    >>> half = (0.5, 0.5, 0.5)
    >>> classifier = Classifier.new("vitrm", ("cat", "dog"), 8, mean=half, std=half, width=12, heads=2, hidden=16)
    >>> classifier.save_pretrained("a-vitrm")
    >>> Classifier.from_pretrained("a-vitrm").names, brdyn.load_model("a-vitrm@2").depth
    (('cat', 'dog'), 8)
    """

    name: str
    network: nn.Module
    names: tuple[str, ...]
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    digest: str = ""

    @classmethod
    @checked
    def new(
        cls,
        name: str,
        names: Sequence[str],
        image_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        seed: int = 0,
        **options: Any,
    ) -> Classifier:
        """An untrained one, drawn by the seed.

        Raises
        ------
        UsageError
            If there is no such network, or it cannot be built so.
        """
        with torch.random.fork_rng(), in_float32():
            torch.manual_seed(seed)
            network = build(name, len(names), image_size, **options)
        return cls(name, network, tuple(names), image_size, tuple(mean), tuple(std), options)

    def untrained(self, seed: int = 0) -> Classifier:
        """Its like, drawn by the seed."""
        return Classifier.new(self.name, self.names, self.image_size, self.mean, self.std, seed, **self.options)

    def normalised(self, pixels: Tensor) -> Tensor:
        """What the network takes, from uint8 images `(B, 3, H, W)`."""
        return normalised(pixels, self.mean, self.std)

    @property
    def architecture(self) -> Architecture:
        """What there is to know of its network."""
        return architecture_of(self.name)

    @property
    def parameters(self) -> int:
        """Of the network; those that layers share count once."""
        return sum(parameter.numel() for parameter in self.network.parameters())

    def flops(self, steps: int = 1) -> int:
        """Floating-point operations of an image's answer, in so many recursion steps of a ViTRM.

        Of matrix products and convolutions, a multiplication and an addition counting two; a layer that shares its
        weights counts as often as it is applied.
        """
        network, image = self.network, self.blank()
        was_training = network.training
        network.eval()
        try:
            with torch.compiler.set_stance("force_eager"):  # compiled code hides what it does
                return runtime.flops(partial(self.architecture.scores, network, image, steps))
        finally:
            network.train(was_training)

    def blank(self) -> Tensor:
        """Zeros where the network takes an image, `(1, 3, H, W)`."""
        size, weight = self.image_size, next(self.network.parameters())
        return torch.zeros(1, CHANNELS, size, size, device=weight.device, dtype=weight.dtype)

    def save_pretrained(self, folder: str | Path, **details: Any) -> None:
        """Write the weights and a config.json, both or neither; takes what :meth:`to_files` takes."""
        pretrained.write(folder, self.to_files(**details))

    def to_files(self, **details: Any) -> dict[str, bytes]:
        """The weights and a config.json, as the bytes of files.

        Parameters
        ----------
        **details
            Further entries of the config: how it was trained.
        """
        config = {
            "network": self.name,
            "options": dict(self.options),
            "classes": list(self.names),
            "image_size": self.image_size,
            "mean": list(self.mean),
            "std": list(self.std),
            **details,
        }
        return pretrained.to_files(KIND, each_once(self.network), config)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Classifier:
        """Read what :meth:`save_pretrained` wrote, in full precision.

        Raises
        ------
        UsageError
            If the folder holds no classifier.
        BrdynError
            If the weights are damaged or do not fit.
        """
        config, _ = pretrained.read_config(folder, KIND, SavedConfig)
        weights = pretrained.read_weights(config.make, folder, config.digest)
        network = config.make()
        network.load_state_dict(weights)
        return cls(
            config.network,
            network.eval().requires_grad_(False),
            config.classes,
            config.image_size,
            config.mean,
            config.std,
            config.options,
            config.digest,
        )


def read_config(folder: str | Path) -> dict[str, Any]:
    """The config.json of a classifier, whole.

    Raises
    ------
    UsageError
        If there is none, or it is of something else, lacks an entry or has one of a wrong type or out of range.
    """
    return pretrained.read_config(folder, KIND, SavedConfig)[1]


def read_trained(folder: str | Path) -> Trained:
    """How the classifier in a folder was trained, as far as its loader needs it.

    Raises
    ------
    UsageError
        As of :func:`read_config`.
    """
    config = read_config(folder)
    file = repr(str(Path(folder) / pretrained.CONFIG))
    return build_declared(Trained, config.get("trained", {}), file, "trained", more=True)


def halve(folder: str | Path) -> None:
    """Write the weights of a saved classifier again in float16, unless they are."""
    config = read_config(folder)
    if config.get("stored") == "float16":
        return
    details = {key: value for key, value in config.items() if key not in (*REBUILT, "format", "digest")}
    classifier = Classifier.from_pretrained(folder)
    classifier.network.half()
    classifier.save_pretrained(folder, **details, stored="float16")


def is_classifier(folder: str | Path) -> bool:
    """Whether a folder holds one."""
    return pretrained.holds(folder, KIND)
