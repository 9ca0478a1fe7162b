"""Results of numbers that are given, and the answers to them."""

import numpy as np
import pandas as pd

from brdyn.raptor import Evaluation
from brdyn.raptor.baselines import Fitted
from brdyn.raptor.fidelity import Fidelity
from brdyn.reporting.found import Found
from brdyn.reporting.verdict import findings

DEPTH = np.array([0, 1, 2, 3, 4, 5, 15, 16, 17, 18, 19, 20])
JUMP, DRIFT = (
    np.exp(-abs(DEPTH[:, None] - DEPTH) / 20),
    np.exp(-abs(np.subtract.outer(range(12), range(12))) / 20),
)


def found(results=(), **options):
    """What was measured on a model: these results by section."""
    return Found("vit", "vit", False, dict(results), **{"failures": {}, "speed": None, **options})


def answer(question, results=(), twin=None, **options):
    answers = findings(found(results, **options), twin)
    return next(one for one in answers if one.question == question)


def interval(mean, half=0.01, n=50):
    return {"mean": mean, "low": mean - half, "high": mean + half, "sd": 0.1, "n_images": n}


HALVES = (0,) * 6 + (1,) * 6  # the phases of JUMP


def evaluation(r2, skill, assignment=HALVES, *, half=0.01, fitted=True, **others):
    """A Raptor of these values at every layer, without an affine map where its skill is none."""
    values = {"r2": r2, "skill_affine": skill, **{f"skill_{name}": value for name, value in others.items()}}
    rows = [
        {"mode": "autoregressive", "statistic": name, "unit": "", "group": "all", "layer": layer,
         **interval(value, half)}
        for name, value in values.items()
        for layer, value in enumerate(value if isinstance(value, list) else [value] * len(assignment), 1)
    ]  # fmt: skip
    maps = Fitted((), {}, 192, left_out="they would take 5 GiB" if np.isnan(skill) else None) if fitted else None
    return Evaluation(Fidelity(pd.DataFrame(rows), baselines=maps), None, None, "tiny", tuple(assignment))
