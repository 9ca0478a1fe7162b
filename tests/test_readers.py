"""Every file that brdyn reads back, altered in every way: one line that names the file, and never a traceback."""

import copy
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analyses.recording import RESULTS
from brdyn.errors import BrdynError, UsageError
from brdyn.interventions import Repair, Splice, Surgery
from brdyn.measures.dynamics import Dynamics
from brdyn.phases import Phases, segment
from brdyn.plots import draw
from brdyn.probes import Probing
from brdyn.raptor import Evaluation, Fit
from brdyn.store import to_json
from brdyn.training import Checkpoints

INTERVAL = {"mean": 0.5, "low": 0.4, "high": 0.6, "sd": 0.1, "n_images": 8}
NULL = {
    "weights": ["random (untrained, seed 1)"],
    "notes": ["still"],
    "values": {"cls: speed": {"value": 0.5, "untrained": [0.25]}},
}
MATRIX = np.exp(-np.abs(np.subtract.outer(np.arange(4), np.arange(4))) / 2)


def phases_of_four():
    return segment(MATRIX, 2).to_dict()


def dynamics():
    row = {"statistic": "basin_ratio", "unit": "ratio", "group": "cls", "layer": 1, **INTERVAL}
    error = {"phase": 1, "group": "cls", "steps": 1, "predictor": "operator", "measure": "cosine", **INTERVAL}
    basins = {
        "neighbours": 10, "chance_purity": 0.1, "n_images": 8, "n_classes": 2, "projected_group": "cls",
        "explained_variance": [0.5, 0.25], "classes": {"3": "cat"},
    }  # fmt: skip
    modes = {"errors": [error], "ridge": 0.001, "rank": None, "n_fitted": 6, "n_held_out": 2}
    modes |= {"centred": True, "rows": {"cls": 6}, "directions": 8}
    test = {
        "statistic": "speed",
        "at_boundaries": 0.2,
        "inside": 0.1,
        "p_value": 0.5,
        "placements": 3,
        "exact": True,
    }
    return {
        "table": [row], "phases": phases_of_four(), "alignment": {"cls": test}, "left_out": {"norm": "why"},
        "basins": basins, "modes": modes, "null": NULL,
    }  # fmt: skip


def surgery():
    row = {
        "kind": "swap",
        "layers": "1,3",
        "phase": 0,
        "order": "3,2,1,4",
        "readout": "cls",
        "measure": "angle",
    }
    test = {
        "within": 0.1, "across": 0.2, "p_contiguous": 0.5, "p_shuffled": 0.5, "matched_excess": None,
        "p_matched": None, "placements": 3, "exact": True, "p_matched_below": None,
    }  # fmt: skip
    return {
        "table": [{**row, **INTERVAL}], "phases": phases_of_four(), "swap_tests": {"cls": test},
        "intact_accuracy": None, "notes": ["no head"], "null": NULL,
    }  # fmt: skip


def splice():
    cell = {"surrogate": "identity", "start": 0, "end": 2, "block": 0, "calibration": 0}
    where = {"group": "all", "where": "within phases", "cells": 4, **INTERVAL}
    return {
        "table": [{**cell, "group": "all", "measure": "skill", **INTERVAL}], "work": [where],
        "test": surgery()["swap_tests"]["cls"], "phases": phases_of_four(),
        "calibration": {"images": 4, "rows": 20, "directions": 8, "ridge": 0.001}, "notes": ["no head"], "null": NULL,
    }  # fmt: skip


def repair():
    start = {"start": 0, "eps": 0.1, "target": "cls", "group": "cls"}
    angles = {**start, "perturbed": True, "layer": 0, **INTERVAL}
    return {
        "angles": [angles],
        "growth": [{**start, **INTERVAL, "half_repair": None}],
        "phases": phases_of_four(),
        "null": NULL,
    }


def evaluation():
    row = {"mode": "one-step", "statistic": "r2", "unit": "R²", "group": "cls", "layer": 1, **INTERVAL}
    names = [
        "parameters", "teacher_parameters", "block_parameters", "teacher_block_parameters", "flops",
        "teacher_flops", "images_per_second", "teacher_images_per_second", "speed_ratio", "batch_size",
    ]  # fmt: skip
    moved = {
        "phase": "block 1",
        "statistic": "step",
        "unit": "norms",
        "group": "all",
        "application": 1,
        **INTERVAL,
    }
    past = {"factor": 2, "phases": [{"name": "block 1", "length": 1}], "table": [moved]}
    run = {"model": "teacher", "probe": "knn", "seed": 0, "accuracy": 0.5, "penalty": None}
    ratio = {"model": "raptor", "probe": "knn", "ratio": 0.9, "low": 0.8, "high": 1.0, "sd": None}
    probing = {
        "n_train": 8,
        "n_test": 2,
        "classes": 2,
        "most_frequent": 0.5,
        "runs": [run],
        "ratios": [ratio],
    }
    return {
        "baselines": {"ridges": [0.001], "rows": {"cls": 4}, "directions": 8, "left_out": None},
        "fidelity": [row], "head": {"agreement": 0.5, "accuracy": None, "teacher_accuracy": None},
        "cost": {**dict.fromkeys(names, 2), "speed_ratio_range": [0.9, 1.1]}, "probing": probing,
        "teacher": "a ViT", "assignment": [0, 0, 1, 1], "beyond": past,
    }  # fmt: skip


def phases():
    model = {"digest": "0" * 64, "layers": 4, "width": 8, "position_rule": "none", "notes": ["odd"]}
    origin = {"model": model, "images": {}, "seconds": 1.5}
    content = {**segment(MATRIX, 2).content(), "model": "tiny", "provenance": origin}
    return json.loads(to_json(content))


def fit():
    history = {
        "losses": [{"step": 1}],
        "validation": [],
        "images": 1,
        "seconds": 0.5,
        "images_per_second": 2.0,
    }
    options = {"assignment": [0, 0, 1, 1], "recipe": {"lr": 0.1}}
    return {"images_seen": 8, "options": options, "raptor": {"parameters": 9}, "stages": {"1": history}}


def probing():
    return {"probing": evaluation()["probing"], "images": {"train": {"read": 8}, "test": {"read": 2}}}


def state():
    history = {"losses": [], "validation": [], "images": 1, "seconds": 0.5, "images_per_second": 2.0}
    rows = {"losses": [{"step": 1, "lr": 0.1}], "validation": [{"step": 1}]}
    saved = {**rows, "images": 8, "seconds": 1.5, "earlier": {"1": history}}
    return {"stage": 1, "step": 5, "digest": "0" * 64, "options": {"lr": 0.1}, "state": saved}


def read_state(folder: Path) -> None:
    try:
        Checkpoints(folder, {"lr": 0.1}).read(folder)
    except BrdynError as error:  # the tensors are not there; what this is about comes before
        if "state.safetensors" not in str(error):
            raise


READERS = {
    "dynamics.json": (dynamics, Dynamics.read),
    "interventions.json": (surgery, Surgery.read),
    "splice.json": (splice, Splice.read),
    "perturb.json": (repair, Repair.read),
    "raptor_eval.json": (evaluation, Evaluation.read),
    "phases.json": (phases, Phases.read),
    "fit.json": (fit, Fit.read),
    "probe.json": (probing, Probing.read),
    "state.json": (state, read_state),
}


FREE = {  # hold anything
    "state.json": {("options", "lr")},
    "fit.json": {("options", "recipe", "lr")},
    "probe.json": {("images", "train", "read"), ("images", "test", "read")},
    "phases.json": {("provenance", "model", "digest")},
}
MAY_LACK = {
    ("boundary_frequency",), ("recursive",), ("phases", "boundary_frequency"), ("phases", "recursive"),
    ("evidence",), ("phases", "evidence"),
    *(("state", key) for key in ("losses", "validation", "images", "seconds", "earlier")),
    *((0, key) for key in ("step", "lr")),  # of a loss: there may be any
    ("alignment", "cls"), ("cls", "statistic"), ("modes", "centred"), ("modes", "rows"), ("rows", "cls"),
    ("modes", "directions"), ("baselines",), ("beyond",), ("basins", "classes"), ("classes", "3"),
    ("left_out", "norm"), ("stages", "1"), ("recipe", "lr"), ("basins",), ("modes",),
    ("similarity",), ("provenance",), ("model", "digest"), ("model", "notes"), ("train", "read"), ("test", "read"),
    ("earlier", "1"), ("swap_tests", "cls"), ("null",), ("values", "cls: speed"),
    ("cls", "p_matched_below"), ("test", "p_matched_below"),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    """With the tables that lie beside a dynamics.json."""
    columns = ["phase", "group", "index", "real", "imaginary", "modulus"]
    pd.DataFrame([[1, "cls", 0, 1.0, 0.0, 1.0]], columns=columns).to_parquet(tmp_path / "spectrum.parquet")
    columns = ["position", "label", "layer", "x", "y"]
    pd.DataFrame([[0, 0, 0, 1.0, 2.0]], columns=columns).to_parquet(tmp_path / "basins.parquet")
    tables = {
        "dynamics": dynamics()["table"], "modes": dynamics()["modes"]["errors"], "perturb": repair()["angles"],
        "growth": repair()["growth"], "interventions": surgery()["table"], "splice": splice()["table"],
    }  # fmt: skip
    for name, rows in tables.items():
        pd.DataFrame(rows).assign(twin=1).to_parquet(tmp_path / f"null_{name}.parquet")
    return tmp_path


def refused(name, folder):
    """The one line that a reader says; None where it reads."""
    said = None
    try:
        READERS[name][1](folder)
    except BrdynError as error:
        said = str(error)
    if said is not None:
        assert name in said or name.split(".")[0] in said
        assert "\n" not in said
    return said


RAW = {
    "deep": b"[" * 100_000, "huge": b'{"a": ' + b"9" * 5000 + b"}", "NaN": b'{"a": NaN}', "twice": b'{"a": 1, "a": 2}',
    "not UTF-8": b'{"a": "\xff"}', "a list": b"[]", "a number": b"1", "half": b'{"a"', "empty": b"", "no keys": b"{}",
}  # fmt: skip


@pytest.mark.parametrize("raw", RAW)
@pytest.mark.parametrize("name", READERS)
def test_files_that_are_something_else(name, raw, folder):
    (folder / name).write_bytes(RAW[raw])
    assert refused(name, folder) is not None


def places(content, path=()):
    """Every place in a nested content, as a path of keys and indices."""
    yield path
    inner = content.items() if isinstance(content, dict) else enumerate(content if isinstance(content, list) else [])
    for key, value in inner:
        yield from places(value, (*path, key))


def altered(content, path, value):
    whole = copy.deepcopy(content)
    place = whole
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return whole


@pytest.mark.parametrize("name", READERS)
def test_any_value_of_another_kind_is_refused(name, folder):
    """Each value in turn becomes one that nothing in these files is: a list in a list in a list, with a `true`."""
    content = json.loads(to_json(READERS[name][0]()))
    (folder / name).write_bytes(to_json(content))
    assert refused(name, folder) is None
    survived = []
    for path in places(content):
        if not path or path in FREE.get(name, ()):
            continue
        (folder / name).write_text(json.dumps(altered(content, path, [[[True]]])))
        if refused(name, folder) is None:
            survived.append(path)
    assert survived == []


@pytest.mark.parametrize("name", READERS)
def test_no_key_may_lack(name, folder):
    content = json.loads(to_json(READERS[name][0]()))
    for path in places(content):
        if not path or isinstance(path[-1], int) or path in FREE.get(name, ()) or path[-2:] in MAY_LACK:
            continue
        whole = copy.deepcopy(content)
        place = whole
        for key in path[:-1]:
            place = place[key]
        del place[path[-1]]
        (folder / name).write_text(json.dumps(whole))
        assert refused(name, folder) is not None, path


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("k",), 9, "k is 9, and its segmentations are for 1 to 4"),
        (("k",), 0, "k is 0"),
        (("layers",), 10**9, "not one for each k from 1 to 1000000000"),
        (("min_size",), 0, "at least 0 of 4 layers"),
        (("segmentations", "2", "boundaries"), [7], r"boundaries \[7\] for k=2 do not cut 4 layers"),
        (("segmentations", "3", "boundaries"), [3, 1], r"boundaries \[3, 1\] for k=3"),
        (("segmentations", "3", "boundaries"), [2, 2], r"boundaries \[2, 2\] for k=3"),
        (("segmentations", "3", "boundaries"), [2], r"boundaries \[2\] for k=3"),
        (("segmentations", "2", "boundaries"), [2**63], "do not cut 4 layers"),
        (("segmentations", "2", "boundaries"), [-1], "do not cut 4 layers"),
        (("segmentations", "2", "boundaries"), [True], r"boundaries\[0\] is true instead of a whole number"),
        (("segmentations", "3", "alternatives", 0, "boundaries"), [0, 1], r"boundaries \[0, 1\] for k=3"),
        (("segmentations", "2", "stability"), [0.5, 0.5], "the stability for k=2"),
        (("boundary_frequency",), [[0.5] * 3] * 3, "boundary_frequency is not 3 numbers for each k"),
        (
            ("recursive",),
            {"clusters": [[1, 2], [2, 4]], "eps": 0.1, "min_size": 2, "exact": True},
            "each once",
        ),
    ],
)
def test_phases_that_no_network_has(path, value, words, folder):
    (folder / "phases.json").write_text(json.dumps(altered(phases(), path, value)))
    with pytest.raises(UsageError, match=words) as caught:
        Phases.read(folder)
    assert "phases.json" in str(caught.value)


@pytest.mark.parametrize("layers", ["0,1", "1,5", "1;2", "", "1,x"])
def test_operations_on_layers_that_there_are_not(layers, folder):
    (folder / "interventions.json").write_text(json.dumps(altered(surgery(), ("table", 0, "layers"), layers)))
    assert "interventions.json" in refused("interventions.json", folder)


@pytest.mark.parametrize(
    ("name", "value"), [("start", 2), ("start", -1), ("end", 5), ("block", 5), ("surrogate", "best")]
)
def test_spans_that_no_network_has(name, value, folder):
    (folder / "splice.json").write_text(json.dumps(altered(splice(), ("table", 0, name), value)))
    assert "splice.json" in refused("splice.json", folder)


@pytest.mark.parametrize("name", ["spectrum.parquet", "basins.parquet", "null_dynamics.parquet", "null_modes.parquet"])
def test_tables_beside_a_result(name, folder, tmp_path_factory):
    (folder / "dynamics.json").write_bytes(to_json(dynamics()))
    whole = (folder / name).read_bytes()
    shutil.copytree(folder, elsewhere := tmp_path_factory.mktemp("elsewhere") / "x")
    for data in (None, b"", whole[: len(whole) // 2], b"PAR1" + whole[4:-20] + b"PAR1"):
        (elsewhere / name).unlink(missing_ok=True)
        if data is not None:
            (elsewhere / name).write_bytes(data)
        with pytest.raises(UsageError, match=name):
            READERS["dynamics.json"][1](elsewhere)
    pd.DataFrame({"other": [1]}).to_parquet(elsewhere / name)
    with pytest.raises(UsageError, match="has no column"):
        READERS["dynamics.json"][1](elsewhere)


def test_alignment_of_earlier_versions_is_of_another_statistic(folder):
    """They did not name it, and a name that there is not is refused."""
    content = dynamics()
    (folder / "dynamics.json").write_bytes(to_json(content))
    assert Dynamics.read(folder).alignment["cls"].statistic == "speed"
    del content["alignment"]["cls"]["statistic"]
    (folder / "dynamics.json").write_bytes(to_json(content))
    found = Dynamics.read(folder)
    assert found.alignment["cls"].statistic == "change of speed"
    assert "change of speed 0.200 at phase boundaries, 0.100 inside" in found.alignment["cls"].describe()
    content["alignment"]["cls"]["statistic"] = "turning"
    (folder / "dynamics.json").write_bytes(to_json(content))
    with pytest.raises(UsageError, match="alignment is of 'turning' instead of 'speed' or 'change of speed'"):
        Dynamics.read(folder)


def test_modes_of_earlier_versions_are_of_uncentred_states(folder):
    """What they did not know of is not said of them."""
    content = dynamics()
    del content["basins"]  # of one row, which do for a reader but say nothing
    del content["modes"]["centred"], content["modes"]["rows"], content["modes"]["directions"]
    row = content["modes"]["errors"][0]
    content["modes"]["errors"] = [
        {**row, "predictor": name, "mean": mean}
        for name, mean in (("operator", 0.97), ("endpoint", 0.98), ("identity", 0.9))
    ]
    (folder / "dynamics.json").write_bytes(to_json(content))
    found = Dynamics.read(folder)
    assert (found.modes.centred, found.modes.underdetermined) == (False, {})
    assert "cosine to the end of the phase, not centred, 0.97 by one operator applied 1 times" in found.summary()


@pytest.mark.parametrize("path", sorted((RESULTS / "dynamics").glob("*/dynamics.json")), ids=str)
def test_recorded_dynamics_are_read_and_drawn(path):
    found = Dynamics.read(path)
    named = [test.get("statistic") for test in json.loads(path.read_text())["alignment"].values() if test]
    assert [test.statistic for test in found.alignment.values() if test] == [
        name or "change of speed" for name in named
    ]
    assert "at phase boundaries" in found.summary()
    assert {"speed", "modes", "spectrum"} <= set(draw(found))
