"""What a result is asked for by a name that it does not have: said, with what it has, not an empty answer."""

import numpy as np
import pandas as pd
import pytest

import brdyn
from analyses.recording import RESULTS
from brdyn import UsageError
from brdyn.store import rows_of

SPLICE = "splice/cifar_vit12"
SURGERY = "interventions/imgfocus_vits14"
LAYERS = "probes/cifar_vit12_layers_cifar10"
EVALUATION = "raptor/cifar_vit12_eval"
ASKED = {
    "statistic of dynamics": ("dynamics/cifar_vit12", lambda found: found.curve("speeds"), "statistic 'speeds'"),
    "group of dynamics": (
        "dynamics/cifar_vit12", lambda found: found.curve("speed", "CLS"), "group 'CLS' of statistic 'speed'",
    ),
    "eps of a repair": ("perturb/cifar_vit12", lambda found: found.final("cls", "cls", 0.3), "eps 0.3"),
    "surrogate of splicing": (SPLICE, lambda found: found.matrix("means"), "surrogate 'means'"),
    "measure for a surrogate": (SPLICE, lambda found: found.matrix("skill"), "surrogate 'skill'"),
    "group of exchanged blocks": (SPLICE, lambda found: found.exchanged("patch"), "group 'patch'"),
    "measure of whole phases": (SPLICE, lambda found: found.whole_phases("R2"), "measure 'R2'"),
    "kind of surgery": (SURGERY, lambda found: found.matrix("swaps", "cls"), "kind 'swaps'"),
    "readout of surgery": (SURGERY, lambda found: found.rows("swap", "patch"), "readout 'patch' of kind 'swap'"),
    "place of a probe": (LAYERS, lambda found: found.value(found.main, "layer 13"), "place 'layer 13'"),
    "score of a probe": (LAYERS, lambda found: found.table("miou"), "score 'miou'"),
    "statistic of a Raptor": (EVALUATION, lambda found: found.fidelity.curve("skill"), "statistic 'skill'"),
    "partition of ranks": (
        "ranks/cifar_vit12", lambda found: found.least_rank("max-cut", 0.9, fitted=False), "partition 'max-cut'",
    ),
    "phase of a map": ("beyond/cifar_vit12", lambda found: found.beyond.curve("phase 9", "step"), "phase 'phase 9'"),
}  # fmt: skip


@pytest.mark.parametrize("asked", ASKED)
def test_what_is_not_there_is_said(asked):
    folder, accessor, missing = ASKED[asked]
    with pytest.raises(UsageError, match=f"^there is no {missing}.*; choose one of .+$"):
        accessor(brdyn.read(RESULTS / folder))


def test_what_could_be_but_was_not_measured_is_no_row():
    table = pd.DataFrame({"kind": ["swap", "swap"], "readout": ["cls", "patches"], "mean": [0.1, 0.2]})
    assert rows_of(table, kind="swap", readout="patches")["mean"].tolist() == [0.2]
    assert rows_of(table, {"kind": ("delete",)}, kind="delete", readout="head").empty
    with pytest.raises(UsageError, match=r"^there is no readout 'head' of kind 'swap'; choose one of 'cls', '"):
        rows_of(table, {"kind": ("delete", "head")}, kind="swap", readout="head")
    with pytest.raises(UsageError, match=r"^there is no kind 'swap'; the table is empty$"):
        rows_of(table[:0], kind="swap")


def test_a_curve_is_of_the_last_group_by_default():
    found = brdyn.read(RESULTS / "dynamics/cifar_vit12")
    np.testing.assert_array_equal(found.curve("speed"), found.curve("speed", found.groups("speed")[-1]))
    assert found.groups("nothing") == []
