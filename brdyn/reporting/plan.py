"""What a report does, of how many images, and what that costs. Needs no torch, so that `--help` is quick."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from brdyn.arguments import checked
from brdyn.choices import EPS, SPLICED, SURGERY, TANGENTS, check_twins, one_of
from brdyn.errors import UsageError
from brdyn.seeds import check_seed
from brdyn.store.result_files import read_plain

RANDOM, UNTRAINED = "random", "-untrained"
REPORT, PAGE = "report.json", "report.html"
FIT, PER_NUMBER = 0.035, 3e-8  # seconds of a linear head, roughly: and for each image, feature and class
MEASURING = 1.6  # passes that a pass with all measures of motion takes, roughly
BRANCHES = 1.3  # times as many with attention and MLP apart
TANGENT = 1.7  # passes that a product with the Jacobians of all blocks takes, roughly
EXCHANGE = "exchange"
SAID = 6  # of results that are not of a report
MAPS = ("mean", "affine")  # that stand in for whole phases


class Section(NamedTuple):
    """A result of a report.

    Attributes
    ----------
    name, file : str
        Its folder in that of the model, and the file there that says it is whole.
    asked : tuple of str
        Fields of :class:`Size` that make it another result.
    twins : bool
        Whether untrained twins are measured beside.
    images : str
        The field of :class:`Size` that says of how many images it is at most; empty for all.
    drawing : float
        Seconds of its pictures, roughly.
    """

    name: str
    file: str
    asked: tuple[str, ...] = ()
    twins: bool = True
    images: str = ""
    drawing: float = 0.0


PHASES = Section("phases", "phases.json", ("leave_out", "measures"))
DYNAMICS = Section("dynamics", "dynamics.json", ("leave_out", "measures"), drawing=5.0)
PERTURB = Section("perturb", "perturb.json", ("eps", "together"), images="perturbed", drawing=4.0)
INTERVENTIONS = Section("interventions", "interventions.json", ("kinds",), images="changed", drawing=1.0)
SPLICE = Section(
    "splice", "splice.json", ("surrogates", "within", "every_span", "fitted"), images="spliced", drawing=2.0
)
SPECTRA = Section("spectra", "dynamics.json", ("krylov_steps",), images="stretched", drawing=2.0)
PROBE = Section("probe", "layer_probe.json", ("probed", "probes"), twins=False, images="probed", drawing=1.0)
RAPTOR = Section("raptor", "fit.json", twins=False)
RAPTOR_EVAL = Section("raptor-eval", "raptor_eval.json", ("beyond",), twins=False, drawing=3.0)
SECTIONS = (PHASES, DYNAMICS, PERTURB, INTERVENTIONS, SPLICE, SPECTRA, PROBE, RAPTOR, RAPTOR_EVAL)
READ = 4  # layers to choose, where there are no phases to give their number
PHASES_EXPECTED = 4  # of which nobody knows the number yet


class Size(NamedTuple):
    """How much a report measures.

    Attributes
    ----------
    images : int
        Of phases and dynamics, where no number is given.
    perturbed, changed, spliced, probed : int
        Of perturbation, of interventions, of splicing, and of probes, at most.
    fitted : int
        Other images that what stands in for layers is fitted to, at most.
    probes : int
        Linear probes at each place, each on its own split.
    leave_out : tuple of str
        Measures that dynamics does without.
    measures : tuple of str
        Of dynamics.
    eps : tuple of float
        Of the noise.
    together : bool
        Add noise to every token group, and to all tokens together, instead of to cls and patches alone.
    kinds : tuple of str
        Of interventions.
    surrogates : tuple of str
        That stand in for layers.
    within : bool
        Exchange blocks within phases alone.
    every_span : bool
        Put surrogates in the place of every span of layers, instead of whole phases alone.
    stretched : int
        Images of Jacobian spectra, at most; none where 0.
    krylov_steps : int
        Of the singular values and vectors.
    beyond : int or None
        How many times its phase's length a Raptor's block is applied; None for not past its phase.
    """

    images: int
    perturbed: int
    changed: int
    spliced: int
    fitted: int
    probed: int
    probes: int
    leave_out: tuple[str, ...]
    measures: tuple[str, ...]
    eps: tuple[float, ...]
    together: bool
    kinds: tuple[str, ...]
    surrogates: tuple[str, ...]
    within: bool
    every_span: bool
    stretched: int
    krylov_steps: int
    beyond: int | None


SIZES = {
    "fast": Size(
        images=100, perturbed=8, changed=8, spliced=5, fitted=0, probed=500, probes=1,
        leave_out=("estimation", "modes"), measures=("all",), eps=(0.2,), together=False, kinds=("delete",),
        surrogates=(EXCHANGE,), within=True, every_span=False, stretched=0, krylov_steps=0, beyond=None,
    ),
    "default": Size(
        images=1000, perturbed=64, changed=32, spliced=32, fitted=256, probed=1000, probes=1,
        leave_out=(), measures=("all", "branches"), eps=EPS, together=True, kinds=SURGERY[:2],
        surrogates=(*MAPS, EXCHANGE), within=False, every_span=False, stretched=32, krylov_steps=2, beyond=8,
    ),
    "thorough": Size(
        images=5000, perturbed=256, changed=256, spliced=256, fitted=1000, probed=5000, probes=3,
        leave_out=(), measures=("all", "branches"), eps=EPS, together=True, kinds=SURGERY,
        surrogates=SPLICED, within=False, every_span=True, stretched=128, krylov_steps=4, beyond=8,
    ),
}  # fmt: skip


@checked
@dataclass(frozen=True, kw_only=True)
class ReportSettings:
    """What a report measures.

    Attributes
    ----------
    size : {"fast", "default", "thorough"}
        How many images and operations; see :data:`SIZES`.
    n : int or None
        Images of phases and dynamics, instead of the number of the size.
    null : int
        Untrained twins to measure beside each model, in dynamics, Jacobian spectra, perturbation, interventions and
        splicing.
    twin : bool
        Report on the untrained network of each model's architecture besides, as on a model.
    raptors : tuple of str
        Folders of Raptors that were fitted, each to one of the models.
    fit_raptor : int
        Steps of a Raptor to fit to each model that no Raptor is given of; 0 for none.
    probes : tuple of str
        Folders of results of :func:`brdyn.probe_layers`, each of one of the models: what is read there is told, too.
    seed : int

    Examples
    --------
    >>> from brdyn.reporting import ReportSettings
    >>> ReportSettings(size="fast").of_size.kinds
    ('delete',)
    """

    size: str = "default"
    n: int | None = None
    null: int = 0
    twin: bool = False
    raptors: tuple[str, ...] = ()
    fit_raptor: int = 0
    probes: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        one_of("size", self.size, SIZES)
        object.__setattr__(self, "null", check_twins(self.null))
        object.__setattr__(self, "seed", check_seed(self.seed))
        if self.n is not None and self.n < 1:
            raise UsageError(f"`n={self.n}`: at least one image is needed")
        if self.fit_raptor < 0:
            raise UsageError(f"`fit_raptor={self.fit_raptor}` steps are less than none")

    @property
    def of_size(self) -> Size:
        """The numbers of the size."""
        return SIZES[self.size]


@dataclass(frozen=True)
class Subject:
    """A model of a report: its name, how it is initialised, and its folder."""

    name: str
    init: str
    folder: str


def subjects(names: Sequence[str], init: str, twin: bool) -> list[Subject]:
    """The models of a report, each with a folder of its own name; twins after their model.

    Raises
    ------
    UsageError
        If there is none, one is named twice, or twins of untrained models are asked for.
    """
    if not names:
        raise UsageError("a report needs at least one `model`")
    if twin and init == RANDOM:
        raise UsageError("`twin` and `init=random` are the same networks; drop one of them")
    twice = next((name for place, name in enumerate(names) if name in names[:place]), None)
    if twice is not None:
        raise UsageError(f"model {twice!r} is named twice")
    found = [
        Subject(name, one, folder)
        for name, folder in zip(names, _folders(names), strict=True)
        for one in ((init, RANDOM) if twin else (init,))
    ]
    return [Subject(one.name, one.init, one.folder + UNTRAINED) if one.init == RANDOM else one for one in found]


def _folders(names: Iterable[str]) -> list[str]:
    """A folder for each name: `facebook/dino-vits16` is at `facebook--dino-vits16`; no two differ by a twin's mark."""
    found: list[str] = []
    for name in names:
        # A path by its last part alone, as the others say where it lies; an id of the hub whole.
        text = Path(name).name if Path(name).exists() or name.startswith(("/", "~", ".")) else name
        plain = re.sub(r"[^\w.@-]+", "-", text.replace("/", "--")).strip(".-") or "model"
        again = plain
        number = 2
        while again.removesuffix(UNTRAINED) in [one.removesuffix(UNTRAINED) for one in found]:
            again, number = f"{plain}-{number}", number + 1
        found.append(again)
    return found


def check_alone() -> None:
    """Refuse to make a report in several processes.

    Raises
    ------
    UsageError
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError("a report is made by one process; drop torchrun, or run its commands one by one under it")


def is_report(folder: Path) -> bool:
    """Whether a folder holds a report, or what a report that was stopped has left."""
    return (folder / REPORT).is_file() or any(True for section in SECTIONS for _ in folder.glob(f"*/{section.name}"))


def check_others(out: Path, others: Iterable[tuple[str, str]]) -> None:
    """Refuse to go on over results of something else.

    Raises
    ------
    UsageError
        Naming them.
    """
    found = [f"{name} ({why})" for name, why in others]
    if found:
        more = f" and {len(found) - SAID} more" if len(found) > SAID else ""
        raise UsageError(
            f"{str(out)!r} holds results that are not of this report: {', '.join(found[:SAID])}{more}; choose another "
            "`out`, or pass `overwrite=True` to replace them"
        )


def others_reported(out: Path, asked: Sequence[Subject]) -> Iterator[tuple[str, str]]:
    """Folders of networks that the report which is there is on, and this one would not be; and why."""
    models = read_plain(out / REPORT).get("models")
    named = [one.get("folder") for one in models if isinstance(one, dict)] if isinstance(models, list) else []
    for folder in named:
        if isinstance(folder, str) and folder not in [one.folder for one in asked]:
            yield folder, "a network that is not asked for"


def passes(section: Section, depth: int, targets: int, settings: ReportSettings) -> float:
    """About how many forward passes of an image a section takes, those of twins included."""
    size, twins = settings.of_size, 1 + settings.null
    if section is DYNAMICS:
        return MEASURING * (BRANCHES if "branches" in size.measures else 1.0) * twins
    if section is PERTURB:
        return (1 + len(size.eps) * targets * (depth + 1) / 2) * twins
    if section is INTERVENTIONS:
        each = {"delete": depth / 2, "swap": depth**2 / 3, "shuffle": depth}
        return (1 + sum(each[kind] for kind in size.kinds)) * twins
    if section is SPLICE:
        return _passes_of_splicing(depth, size) * twins
    if section is SPECTRA:
        return (1 + TANGENT * TANGENTS * (1 + 2 * size.krylov_steps)) * twins
    if section is PROBE:
        return 1.0
    # Of a Raptor that is evaluated: teacher, both modes, baselines; and past its phases, with what is read there.
    return 4.0 + 2.0 * (size.beyond or 0)


def _passes_of_splicing(depth: int, size: Size) -> float:
    """Of an image that is judged by: every block of a layer's partners, and spans without anything in their place."""
    blocks = depth / PHASES_EXPECTED if size.within else depth  # in the place of a layer, or none
    spans = depth**2 / 6 if size.every_span else PHASES_EXPECTED / 2
    return 1 + blocks * (depth + 1) / 2 + len(size.surrogates) * spans


def heads_seconds(images: int, features: int, classes: int, depth: int, probes: int) -> float:
    """About how long linear heads take: of every layer, and of the layers that are tried to choose the best few.

    Parameters
    ----------
    images, features, classes, depth : int
        Of the model's layers; `features` of one of them.
    probes : int
        Heads at each place, of all penalties.
    """
    tried = [(depth - number, number + 1) for number in range(min(READ, depth))]  # places, and layers of each
    fits = [(3 * places, width) for places, width in tried] + [
        (7 * probes * depth, 1),
        (7 * probes * 4, READ),
    ]
    return sum(count * (FIT + PER_NUMBER * images * width * features * classes) for count, width in fits)


def said_duration(seconds: float) -> str:
    """`40 s`, `3 min`, `2.5 h`.

    >>> from brdyn.reporting.plan import said_duration
    >>> [said_duration(seconds) for seconds in (0.2, 40, 200, 9000)]
    ['1 s', '40 s', '3 min', '2.5 h']
    """
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def options_of(section: Section, settings: ReportSettings) -> dict[str, Any]:
    """What a section was asked for, ready for JSON: with another of these it is another result."""
    asked = {name: getattr(settings.of_size, name) for name in section.asked}
    if section.twins:
        asked["null"] = settings.null
    if section is SPECTRA:
        asked["tangents"] = TANGENTS
    if section in (RAPTOR, RAPTOR_EVAL):
        asked["fit_raptor"] = settings.fit_raptor
    return {**asked, "seed": settings.seed}
