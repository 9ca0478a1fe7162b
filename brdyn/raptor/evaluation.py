"""Everything that is asked of a fitted Raptor: fidelity, cost, and what its features are worth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brdyn.checked_json import fields_of, made
from brdyn.data import ImageSet
from brdyn.probes import SEEDS, FeatureMetric, Features, Probing, extract_features, probe
from brdyn.probes.features import feature_width, read_out
from brdyn.probes.probing import SHAPE as PROBING
from brdyn.raptor.cost import Cost, cost
from brdyn.raptor.fidelity import Fidelity, fidelity, student_states
from brdyn.raptor.model import Raptor
from brdyn.results import ROW, read_json, records
from brdyn.runtime import Processes

TEACHER, RAPTOR = "teacher", "raptor"
FILE = "raptor_eval.json"
SHAPE = {
    "fidelity": [{"mode": str, "statistic": str, "unit": str, "group": str, "layer": int, **ROW}],
    "head": dict.fromkeys(("agreement", "accuracy", "teacher_accuracy"), (float, None)),
    "cost": (fields_of(Cost), None),
    "probing": (PROBING, None),
}


@dataclass(frozen=True)
class Evaluation:
    """How faithful a Raptor is, what it costs, and what its features are worth.

    Attributes
    ----------
    fidelity : Fidelity
    cost : Cost or None
        None in processes other than the main one.
    probing : Probing or None
        Models `teacher` and `raptor`; None without labelled images, and in processes other than the main one.

    Examples
    --------
    >>> from brdyn.raptor import BlockConfig, Evaluation, Raptor
    >>> from brdyn.raptor.fidelity import fidelity
    >>> raptor = Raptor(model, [0] * 6 + [1] * 6, BlockConfig(width=192, heads=3, mlp_ratio=1.0))
    >>> found = Evaluation(fidelity(raptor, images), cost=None)
    >>> found.fidelity.curve("cosine", "cls").shape
    (12,)
    """

    fidelity: Fidelity
    cost: Cost | None
    probing: Probing | None = None

    @classmethod
    def read(cls, folder: str | Path) -> Evaluation:
        """What `brdyn raptor-eval` wrote to a folder.

        Raises
        ------
        UsageError
            If there is no such result.
        """
        content = read_json(Path(folder) / FILE, "a result of brdyn raptor-eval", SHAPE)
        probing = Probing.from_dict(content["probing"]) if content["probing"] else None
        return cls(
            Fidelity.from_records(content["fidelity"], content["head"]),
            made(Cost, content["cost"]) if content["cost"] else None,
            probing,
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {
            "fidelity": records(self.fidelity.table),
            "head": self.fidelity.head(),
            "cost": self.cost.to_dict() if self.cost else None,
            "probing": self.probing.to_dict() if self.probing else None,
        }


def evaluate(
    raptor: Raptor,
    images: ImageSet,
    train: ImageSet | None = None,
    test: ImageSet | None = None,
    *,
    seeds: int = SEEDS,
    **options: Any,
) -> Evaluation:
    """Compare a Raptor with its teacher.

    Parameters
    ----------
    raptor : Raptor
    images : ImageSet
        For fidelity.
    train, test : ImageSet, optional
        With labels, for probes; none without them.
    seeds : int
        Linear probes for each model.
    **options
        Of :func:`brdyn.measures.engine.measure`.

    Returns
    -------
    Evaluation

    Examples
    --------
    >>> from brdyn.raptor import BlockConfig, Raptor, evaluate
    >>> raptor = Raptor(model, [0] * 12, BlockConfig(width=192, heads=3, mlp_ratio=1.0))
    >>> found = evaluate(raptor, images)
    >>> found.cost.block_parameters < found.cost.teacher_block_parameters
    True
    """
    processes: Processes = options.get("processes") or Processes(raptor.device)
    found = fidelity(raptor, images, **options)
    features = [
        paired_features(raptor, part, **options)
        for part in ((train, test) if train is not None and test is not None else ())
        if part is not None
    ]
    if not processes.is_main:
        return Evaluation(found, None)
    probing = probe(*features, seeds=seeds, device=raptor.device) if features else None
    return Evaluation(found, cost(raptor), probing)


def paired_features(raptor: Raptor, images: ImageSet, **options: Any) -> dict[str, Features]:
    """Features of the teacher and of the Raptor, in one pass over labelled images."""
    metrics = {
        TEACHER: FeatureMetric.of(raptor.teacher),
        RAPTOR: FeatureMetric(
            lambda trajectory: read_out(raptor, student_states(raptor, trajectory)[-1]), feature_width(raptor)
        ),
    }
    return extract_features(raptor.teacher, images, metrics, **options)
