"""Everything that is asked of a fitted Raptor: fidelity, cost, and what its features are worth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self

import pandas as pd

from brdyn.arguments import checked
from brdyn.choices import SEEDS, check_beyond
from brdyn.data import ImageSet
from brdyn.errors import UsageError
from brdyn.measures.found_fixed_points import SHAPE as FIXED_POINTS
from brdyn.measures.found_fixed_points import FixedPoints
from brdyn.probes import FeatureMetric, Features, LayerProbe, Probing, extract_features, probe, probe_layers
from brdyn.probes.features import feature_width, read_out
from brdyn.probes.of_images import described, train_and_test
from brdyn.probes.probing import SHAPE as PROBING
from brdyn.probes.stores import Readout
from brdyn.provenance import Provenance, Stopwatch
from brdyn.raptor.baselines import BASELINES, Fitted
from brdyn.raptor.cost import Cost, cost
from brdyn.raptor.fidelity import Fidelity, fidelity, student_states
from brdyn.raptor.fixed_points import past_phases
from brdyn.raptor.model import Raptor
from brdyn.result import Result
from brdyn.store import ROW, records
from brdyn.trajectory import Stream
from brdyn.words import counted as number_of
from brdyn.words import table_lines, with_interval

TEACHER, RAPTOR = "teacher", "raptor"
SHOWN = {"r2": "R²", "relative_error": "relative error", "cosine": "cosine", "epsilon": "epsilon"}


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation(Result):
    """How faithful a Raptor is, what it costs, and what its features are worth.

    Attributes
    ----------
    fidelity : Fidelity
    cost : Cost or None
        None in processes other than the main one.
    probing : Probing or None
        Models `teacher` and `raptor`; None without labelled images, and in processes other than the main one.
    teacher : str
        Its name.
    assignment : tuple of int
        The block of each layer.
    layers : LayerProbe or None
        What is read from the layers of both, where that was asked for.
    beyond : FixedPoints or None
        What its blocks do past their phases, where that was asked for.

    Examples
    --------
    >>> from brdyn.raptor import BlockConfig, Evaluation, Raptor
    >>> from brdyn.raptor.fidelity import fidelity
    >>> raptor = Raptor(model, [0] * 6 + [1] * 6, BlockConfig(width=192, heads=3, mlp_ratio=1.0))
    >>> found = Evaluation(fidelity(raptor, images), cost=None)
    >>> found.fidelity.curve("cosine", "cls").shape
    (12,)
    """

    FILE: ClassVar[str] = "raptor_eval.json"
    SHAPE: ClassVar[Mapping[str, Any]] = {
        "fidelity": [{"mode": str, "statistic": str, "unit": str, "group": str, "layer": int, **ROW}],
        "baselines?": (Fitted, None),
        "head": dict.fromkeys(("agreement", "accuracy", "teacher_accuracy"), (float, None)),
        "cost": (Cost, None),
        "probing": (PROBING, None),
        "probe_images?": (dict, None),
        "layer_probe?": (LayerProbe.SHAPE, None),
        "beyond?": (FIXED_POINTS, None),
        "teacher": str,
        "assignment": [int],
    }
    TIMED: ClassVar[bool] = False

    fidelity: Fidelity
    cost: Cost | None
    probing: Probing | None = None
    teacher: str = ""
    assignment: tuple[int, ...] = ()
    layers: LayerProbe | None = None
    beyond: FixedPoints | None = None

    def content(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {
            "teacher": self.teacher,
            "assignment": list(self.assignment),
            "probe_images": self.probing.images if self.probing else None,
            "fidelity": records(self.fidelity.table),
            "baselines": asdict(self.fidelity.baselines) if self.fidelity.baselines else None,
            "head": self.fidelity.head(),
            "cost": asdict(self.cost) if self.cost else None,
            "probing": self.probing.to_dict() if self.probing else None,
            "layer_probe": self.layers.content() if self.layers else None,
            "beyond": self.beyond.to_dict() if self.beyond else None,
        }

    def tables(self) -> dict[str, pd.DataFrame]:
        """Fidelity, what probes of layers counted, and the blocks past their phases."""
        counted = {} if self.layers is None else self.layers.tables()
        past = {} if self.beyond is None else {"beyond.parquet": self.beyond.table}
        return {"fidelity.parquet": self.fidelity.table, **counted, **past}

    def others(self) -> Mapping[str, bytes]:
        """Examples of probes of layers."""
        return {} if self.layers is None else self.layers.others()

    @classmethod
    def from_content(cls, content: Mapping[str, Any], folder: Path) -> Self:
        """Back from a raptor_eval.json."""
        layers = content.get("layer_probe")
        probing = Probing.from_dict(content["probing"]) if content["probing"] else None
        return cls(
            Fidelity.from_records(content["fidelity"], content["head"], content.get("baselines")),
            content["cost"],
            replace(probing, images=content.get("probe_images")) if probing else None,
            content["teacher"],
            tuple(content["assignment"]),
            None if layers is None else LayerProbe.from_content(layers, folder),
            FixedPoints.from_dict(content["beyond"]) if content.get("beyond") else None,
        )

    def answer(self) -> str:
        """R^2 at the last layer by the Raptor's own way, and where it is least."""
        found = self.fidelity
        said = []
        for group in dict.fromkeys(found.table["group"]):
            values = found.curve("r2", group)
            if values.iloc[-1] == values.iloc[-1]:  # tokens that do not vary have none
                said.append(
                    f"{group} {values.iloc[-1]:.3f} at the last layer, {values.min():.3f} at least "
                    f"(layer {values.idxmin()})"
                )
        of = f"{self.brief()}, R² on its own way" if self.assignment else "R² on the Raptor's own way"
        return f"{of}: {'; '.join(said) or 'none, as no tokens vary'}"

    def alike(self) -> dict[str, Any]:
        """Also the images that probes were fitted to and tested on."""
        read = (self.probing.images if self.probing else None) or {}
        said = {"train": "images that probes were fitted to", "test": "images that probes were tested on"}
        return super().alike() | {words: read.get(name, {}).get("digest") for name, words in said.items()}

    def overview(self) -> list[dict[str, Any]]:
        """Fidelity at the last layer: autoregressive and one-step."""
        rows = []
        for mode, part in self.fidelity.table.groupby("mode", sort=False):
            last = part[part["layer"] == part["layer"].max()]
            values = last.pivot(index="group", columns="statistic", values="mean")
            for group in dict.fromkeys(part["group"]):
                row: dict[str, Any] = {"way": str(mode), "tokens": str(group)}
                row |= {words: float(values.loc[group, name]) for name, words in SHOWN.items()}
                if self.fidelity.baselines is not None:
                    row |= {
                        f"over {words}": float(values.loc[group, f"skill_{name}"]) for name, words in BASELINES.items()
                    }
                rows.append(row)
        return rows

    def remarks(self) -> list[str]:
        """Baselines, the head, cost, blocks past their phases, and probes."""
        found = self.fidelity
        lines = []
        if found.baselines is not None:
            lines.append(f"baselines of the same spans, and the skill over each: {found.baselines.describe()}")
            lines.append(f"skill of all tokens at the last layer, on its own way: {self._skill()}")
        if found.agreement is not None:
            lines.append(f"the head of the teacher gives the same class for {found.agreement:.1%} of the images")
        if found.accuracy is not None:
            lines.append(f"accuracy by that head: {found.accuracy:.1%}, teacher {found.teacher_accuracy:.1%}")
        if self.cost is not None:
            lines.append(self.cost.describe())
        if self.beyond is not None:
            lines += self.beyond.remarks()
        if self.layers is not None:
            return [
                *lines,
                f"probes: {self.layers.answer()}",
                *table_lines(self.layers.overview()),
                *self.layers.remarks(),
            ]
        if self.probing is None:
            return [*lines, "no probes: give labelled images to train them on"]
        return [*lines, f"probes: {self.probing.answer()}", *self.probing.remarks()]

    def _skill(self) -> str:
        """Over each baseline, with its interval over images."""
        table = self.fidelity.table
        last = table[
            (table["mode"] == table["mode"].iloc[0])
            & (table["group"] == "all")
            & (table["layer"] == table["layer"].max())
        ].set_index("statistic")
        found = []
        for name, words in BASELINES.items():
            mean, low, high = last.loc[f"skill_{name}", ["mean", "low", "high"]]
            found.append(f"over {words} {with_interval(mean, low, high, '.3f')}")
        return ", ".join(found)

    def brief(self) -> str:
        """Blocks and teacher."""
        blocks = number_of(len(set(self.assignment)), "block")
        return f"{blocks} for the {len(self.assignment)} layers of {self.teacher}"


@checked
def evaluate(
    raptor: Raptor,
    images: ImageSet,
    train: ImageSet | None = None,
    test: ImageSet | None = None,
    *,
    seeds: int = SEEDS,
    stream: Stream | None = None,
    layer_options: Mapping[str, Any] | None = None,
    beyond: int | None = None,
) -> Evaluation:
    """Compare a Raptor with its teacher.

    Parameters
    ----------
    raptor : Raptor
    images : ImageSet
        For fidelity.
    train, test : ImageSet, optional
        With labels, for probes; none without them. By default a fifth of the first are to test them.
    seeds : int
        Linear probes for each model.
    stream : Stream, optional
        How to go through the images.
    layer_options : mapping, optional
        Of :func:`brdyn.probe_layers`, which then reads the layers of both instead: `{"layers": "all"}`.
    beyond : int, optional
        Also apply each block so many times its phase's length, and see what it comes to.

    Returns
    -------
    Evaluation

    Raises
    ------
    UsageError
        If `beyond` is below 2; if there is something for probes, and nothing to train them on.

    Examples
    --------
    >>> from brdyn.raptor import BlockConfig, Raptor, evaluate
    >>> raptor = Raptor(model, [0] * 12, BlockConfig(width=192, heads=3, mlp_ratio=1.0))
    >>> found = evaluate(raptor, images)
    >>> found.cost.block_parameters < found.cost.teacher_block_parameters
    True
    """
    watch, stream = Stopwatch(), stream or Stream()
    check_beyond(beyond)
    if train is None and not (test is None and layer_options is None):
        raise UsageError("`test` and `layer_options` are of probes; give labelled images to `train` them on, too")
    by_layer = layer_options is not None
    read = () if train is None or by_layer else train_and_test(train, test, images.seed)
    past = {} if beyond is None else past_phases(raptor, beyond, images.seed, images.label_names)
    found = fidelity(raptor, images, stream=stream, others=past)
    layers = None
    if train is not None and by_layer:
        layers = probe_layers(
            raptor.teacher,
            train,
            test,
            seeds=seeds,
            stream=stream,
            readouts=paired_readouts(raptor),
            **{"seed": images.seed, **(layer_options or {})},
        )
    features = [paired_features(raptor, part, stream=stream) for part in read]
    assignment = tuple(raptor.assignment)
    ends = FixedPoints.of(beyond, past) if beyond is not None else None
    if ends is not None and found.accuracy is None:  # labels are of other classes
        ends = ends.without("accuracy")
    if not stream.is_main:
        return Evaluation(found, None, None, raptor.teacher.info.name, assignment)
    probing = probe(*features, seeds=seeds, seed=images.seed, device=raptor.device) if features else None
    if probing is not None:
        probing = replace(probing, images=described(*read))
    origin = Provenance.of(raptor, images, watch, stream.processes, seed=images.seed)
    return Evaluation(
        found, cost(raptor), probing, raptor.teacher.info.name, assignment, layers, ends, provenance=origin
    )


def paired_readouts(raptor: Raptor) -> dict[str, Readout]:
    """The layers of the teacher and of the Raptor, in one pass over the images."""
    return {TEACHER: Readout(raptor.teacher), RAPTOR: Readout(raptor, partial(student_states, raptor))}


def paired_features(raptor: Raptor, images: ImageSet, stream: Stream | None = None) -> dict[str, Features]:
    """Features of the teacher and of the Raptor, in one pass over labelled images."""
    metrics = {
        TEACHER: FeatureMetric.of(raptor.teacher),
        RAPTOR: FeatureMetric(
            lambda trajectory: read_out(raptor, student_states(raptor, trajectory)[-1]), feature_width(raptor)
        ),
    }
    return extract_features(raptor.teacher, images, metrics, stream=stream)
