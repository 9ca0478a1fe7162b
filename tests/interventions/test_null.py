"""The numbers of perturbations and interventions that are told beside those of twins, by hand."""

import numpy as np
import pandas as pd
import pytest

from brdyn.interventions import repair_result, surgery_result
from brdyn.phases import Phases, segment


def angle(start, mean, *, layer=6, eps=0.2, target="cls", group="cls"):
    perturbed = target in (group, "all")
    return {"start": start, "eps": eps, "target": target, "group": group, "perturbed": perturbed, "layer": layer,
            "mean": mean}  # fmt: skip


def test_shallow_and_deep_noise():
    """Of the largest noise, on what got it, at the last layer; noise on the last state goes through no block."""
    rows = [angle(start, mean) for start, mean in enumerate([1.0, 3.0, 9.0, 9.0, 5.0, 7.0, 99.0])]
    rows += [angle(0, 50.0, eps=0.1), angle(0, 50.0, layer=3), angle(0, 50.0, group="patches")]
    found = repair_result.headlines(pd.DataFrame(rows))
    assert found == {
        "cls, noise of 0.2 on cls: angle at the last layer (radians) from shallow noise": 2.0,
        "cls, noise of 0.2 on cls: angle at the last layer (radians) from deep noise": 6.0,
        "cls, noise of 0.2 on cls: deep over shallow": 3.0,
    }


def test_harm_within_and_across_phases():
    labels = np.repeat([0, 1], 2)
    phases: Phases = segment((labels[:, None] == labels[None]).astype(float), k=2)
    rows = [("swap", "1,2", 1.0), ("swap", "3,4", 3.0), ("swap", "1,3", 10.0), ("delete", "1", 5.0),
            ("delete", "4", 6.0), ("replace", "1,4", 7.0), ("shuffle_within", "1,2", 8.0)]  # fmt: skip
    table = pd.DataFrame(rows, columns=["kind", "layers", "mean"]).assign(readout="cls", measure="relative_error")
    other = table.assign(measure="angle", mean=99.0)
    assert surgery_result.headlines(pd.concat([table, other]), phases) == pytest.approx(
        {
            "cls: relative error of swaps within a phase": 2.0,
            "cls: relative error of swaps across phases": 10.0,
            "cls: relative error of deletions": 5.5,
            "cls: relative error of replacements across phases": 7.0,
            "cls: relative error of shuffles within a phase": 8.0,
        }
    )
