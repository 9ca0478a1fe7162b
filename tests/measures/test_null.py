"""A result beside untrained twins: the same measurement, one twin in memory at a time, and where a number lies."""

import json
import weakref
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import brdyn
from brdyn.choices import chosen_measures
from brdyn.errors import BrdynError, UsageError
from brdyn.measures.headlines import headlines
from brdyn.measures.in_words import decision
from brdyn.measures.null import BesideTwins, Null, _placed, with_null
from brdyn.measures.readout import AGREEMENT, DIVERGENCE
from brdyn.models.twins import UntrainedTwins
from brdyn.phases import segment
from brdyn.trajectory import Stream
from tests.conftest import tiny_vit
from tests.interventions.stub import StubViT

STREAM = Stream(workers=0, batch_size=8)
MEASURES = {
    "dynamics": (brdyn.token_dynamics, {"measures": ["speed", "update", "modes"], "rank": 2}),
    "perturb": (brdyn.perturbation_repair, {"eps": [0.1, 0.2], "starts": [0, 1, 3]}),
    "interventions": (brdyn.layer_surgery, {"kinds": ["swap", "delete", "shuffle", "replace"], "draws": 2}),
}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    from PIL import Image

    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for index in range(8):
        Image.fromarray(rng.integers(0, 255, (34, 40, 3), dtype=np.uint8)).save(folder / f"{index}.png")
    return brdyn.load_images(folder, tiny_vit())


@pytest.fixture(scope="module", params=MEASURES)
def found(request, images):
    measure, options = MEASURES[request.param]
    twins = [tiny_vit(seed=1), tiny_vit(seed=2)]
    return request.param, with_null(measure, tiny_vit(), images, k=2, twins=twins, stream=STREAM, **options)


def test_the_table_of_a_twin_is_what_measuring_it_gives(found, images):
    """With the phases of the model, not its own; the model's own numbers are as without twins."""
    name, result = found
    measure, options = MEASURES[name]
    alone = measure(tiny_vit(), images, k=2, stream=STREAM, **options)
    assert replace(result, null=None) == alone
    assert set(result.null.tables) == set(result.compared())
    for number, tables in enumerate(result.null.each(), 1):
        twin = measure(tiny_vit(seed=number), images, result.phases, stream=STREAM, **options)
        for table, wanted in twin.compared().items():
            pd.testing.assert_frame_equal(tables[table].reset_index(drop=True), wanted.reset_index(drop=True))
        values = {what: twins[number - 1] for what, (_, twins) in result.beside().items()}
        assert values == pytest.approx(twin.headlines(twin.compared()), nan_ok=True)


def test_every_result_that_can_have_twins_is_named():
    kinds = {kind.__name__ for kind in BesideTwins.__subclasses__() if kind.__module__.startswith("brdyn.")}
    assert {"Dynamics", "Splice"} <= kinds
    assert [kind for kind in sorted(kinds) if kind not in with_null.__doc__] == []


def test_twins_are_given_the_phases_that_were_found_in_the_model(images):
    given = []

    def measure(model, images, phases=None, **options):
        given.append(phases)
        return brdyn.token_dynamics(model, images, phases, measures=["norm"], **options)

    twins = [tiny_vit(seed=1), tiny_vit(seed=2)]
    found = with_null(measure, tiny_vit(), images, k=3, twins=twins, stream=STREAM)
    assert given == [None, found.phases, found.phases]
    assert found.phases.k == 3


def test_it_comes_back_from_its_folder(found, tmp_path):
    name, result = found
    result.save(tmp_path / "out")
    again = brdyn.read(tmp_path / "out")
    assert again == result
    assert again.null == result.null
    assert again.summary() == result.summary()
    content = json.loads((tmp_path / "out" / f"{name}.json").read_text())
    assert content["null"]["weights"] == ["test weights"] * 2
    assert {f"null_{table}.parquet" for table in result.null.tables} <= set(content["files"])
    assert replace(result, null=None) != result


def test_tables_of_twins_that_are_not_theirs_are_refused(found, tmp_path):
    _, result = found
    result.save(tmp_path / "out")
    for name, table in result.null_tables().items():
        path = tmp_path / "out" / name
        table.assign(twin=3).to_parquet(path)
        with pytest.raises(UsageError, match=f"{name} is of other twins than the 2 that are named"):
            brdyn.read(tmp_path / "out")
        table.drop(columns="mean").to_parquet(path)
        with pytest.raises(UsageError, match="is not a table of untrained twins"):
            brdyn.read(tmp_path / "out")
        path.unlink()
        with pytest.raises(UsageError, match=f"half removed.*{name}"):
            brdyn.read(tmp_path / "out")
        table.to_parquet(path)
    assert brdyn.read(tmp_path / "out") == result


def test_what_a_head_reads_out_is_not_compared(noise_folder):
    stub = StubViT([lambda state: state + 1, lambda state: 2 * state], classes=2)
    surgery = brdyn.layer_surgery(stub, brdyn.load_images(noise_folder, stub, n=4), k=1, stream=STREAM)
    assert "head" in set(surgery.table["readout"])
    assert set(surgery.compared()["interventions"]["readout"]) == {"cls", "patches"}


def test_a_twin_is_gone_when_the_next_is_drawn(images, monkeypatch):
    alive, left, draw = weakref.WeakSet(), [], UntrainedTwins._draw

    def drawn(self, seed):
        left.append(len(alive))
        twin = draw(self, seed)
        alive.add(twin)
        return twin

    monkeypatch.setattr(UntrainedTwins, "_draw", drawn)
    model = brdyn.load_model("vit_tiny_patch16_224", init="random", image_size=32)
    twins = brdyn.untrained_twins(model, 3)
    with_null(brdyn.token_dynamics, model, images, k=2, twins=twins, measures=["speed"], stream=STREAM)
    assert left == [0, 0, 0]


def test_the_bar_counts_twins(images, monkeypatch):
    said = []
    bar = brdyn.trajectory.progress_bar
    monkeypatch.setattr("brdyn.trajectory.progress_bar", lambda name, *rest: said.append(name) or bar(name, *rest))
    twins = [tiny_vit(seed=1), tiny_vit(seed=2)]
    with_null(brdyn.token_dynamics, tiny_vit(), images, twins=twins, measures=["speed"], stream=STREAM)
    assert said == [f"tiny_vit{twin}: reading" for twin in ("", ", untrained twin 1 of 2", ", untrained twin 2 of 2")]


def broken():
    twin = tiny_vit(seed=1)
    twin.blocks[1].mlp.fc1.weight.fill_(float("nan"))
    return twin


@pytest.mark.parametrize("name", MEASURES)
def test_a_twin_that_cannot_be_measured_does_not_lose_the_model(name, images, tmp_path):
    measure, options = MEASURES[name]
    twins = [tiny_vit(seed=1), broken()]
    found = with_null(measure, tiny_vit(), images, k=2, twins=twins, stream=STREAM, **options)
    alone = measure(tiny_vit(), images, k=2, stream=STREAM, **options)
    for table, rows in found.compared().items():
        pd.testing.assert_frame_equal(rows, alone.compared()[table])
    (note,) = found.null.notes
    assert note.startswith("no null, as of untrained twin 2 of 2: the output of layer 2 of 'tiny_vit' is not")
    assert found.beside() == {}
    assert note in found.summary()
    assert "beside" not in found.summary()
    found.save(tmp_path / "kept")
    assert brdyn.read(tmp_path / "kept").null.notes == (note,)
    brdyn.plots.draw(found)


def test_nor_one_that_cannot_be_drawn(images):
    model = tiny_vit()
    model.redraw = lambda seed: tiny_vit(depth=model.depth + 1)
    found = with_null(
        brdyn.token_dynamics,
        model,
        images,
        twins=UntrainedTwins(model, 2, 0),
        measures=["speed"],
        stream=STREAM,
    )
    assert "is built otherwise than its weights" in found.null.notes[0]


def test_among_several_processes_an_error_says_which_twin_it_is_of(images, monkeypatch):
    """The others may be waiting for its numbers."""
    monkeypatch.setattr(Stream, "is_alone", False)
    with pytest.raises(BrdynError, match="untrained twin 2 of 2: the output of layer 2 of 'tiny_vit' is not finite"):
        with_null(brdyn.token_dynamics, tiny_vit(), images, twins=[tiny_vit(seed=1), broken()], stream=STREAM)


def test_no_twins_are_no_null(images):
    found = with_null(brdyn.token_dynamics, tiny_vit(), images, twins=[], measures=["speed"], stream=STREAM)
    assert found.null is None
    assert "null" not in found.content()
    assert "untrained" not in found.summary()
    assert "images/s" in found.summary()


def test_headlines_by_hand():
    table = pd.concat(
        [
            pd.DataFrame({"statistic": name, "group": "cls", "layer": range(len(values)), "mean": values})
            for name, values in {
                "speed": [0.1, 0.2, 0.9], "convergence": [0.0, 0.3, 0.5, 1.0],
                "effective_rank": [2.0, 7.0, 3.0], "stable_rank": [1.0, 2.0, 3.0], "mine": [4.0, 5.0],
            }.items()
        ]
    )  # fmt: skip
    assert headlines(table, silent=["stable_rank", "effective_rank"]) == {
        "cls: angular speed of the last update (radians)": 0.9,
        "cls: cosine to the final state at half depth": 0.3,  # after one of three blocks
        "cls: largest effective rank of an update": 7.0,
        "cls: effective rank of the last update": 3.0,
        "cls: mine at last": 5.0,
    }


@pytest.mark.parametrize(("layers", "half"), [(3, 1), (4, 2)])
def test_half_depth_is_one_state_in_numbers_and_in_words(layers, half):
    states = np.arange(layers + 1)
    table = pd.concat(
        pd.DataFrame({"statistic": name, "group": "head", "layer": states, "mean": values})
        for name, values in ((AGREEMENT, states / 10), (DIVERGENCE, states / 100))
    )
    told = headlines(table[table["statistic"] == AGREEMENT])
    assert told == {"head: share of images with the final class at half depth": half / 10}
    said = decision(table, segment(np.eye(layers)), 1.0, np.nan, np.nan)
    assert f"at state {half} in {half / 10:.0%} of images, KL {half / 100:.2f}" in said


@pytest.mark.parametrize(
    ("value", "twins", "said"),
    [
        (1.02, [0.10, 0.12, 0.11], "x: 1.02, untrained 0.11 [0.1, 0.12]: above all"),
        (0.05, [0.10, 0.12, 0.11], "x: 0.05, untrained 0.11 [0.1, 0.12]: below all"),
        (0.12, [0.10, 0.12, 0.11], "x: 0.12, untrained 0.11 [0.1, 0.12]: among them"),
        (1.02, [0.1], "x: 1.02, untrained 0.1: above all"),
        (float("nan"), [0.1], ""),
        (0.1, [0.1, float("nan")], ""),
    ],
)
def test_where_a_number_lies(value, twins, said):
    assert _placed("x", value, np.array(twins)) == said


def test_one_twin_says_little(images):
    twins = [tiny_vit(seed=1)]
    found = with_null(brdyn.token_dynamics, tiny_vit(), images, twins=twins, measures=["speed"], stream=STREAM)
    assert "beside 1 untrained twin of this architecture" in found.summary()
    assert "one twin shows no spread; take 5 or more" in found.summary()
    assert "p = " not in "\n".join(found.null_lines())
    assert "images/s" not in found.summary()  # most of the time was the twin's


def test_a_band_is_from_the_least_to_the_largest_twin():
    rows = pd.DataFrame(
        {"group": ["a", "b", "a", "b", "a", "b"], "mean": [1.0, 5, 3, 6, 8, 7], "twin": [1, 1, 2, 2, 3, 3]}
    )
    band = Null(("x", "y", "z"), {"t": rows}).band("t", ["group"])
    assert band.to_dict("list") == {"group": ["a", "b"], "low": [1, 5], "middle": [4, 6], "high": [8, 7]}


def test_what_one_twin_lacks_is_told_of_none(images, monkeypatch, tmp_path):
    """Memory may do for the modes of the model and of a twin, and not for those of the next."""
    free = iter([2**40, 2**40, 0])
    monkeypatch.setattr("brdyn.measures.modes.available_memory", lambda device: next(free))
    others = [name for name in chosen_measures(None) if name not in ("speed", "modes")]
    options = {"measures": ["all"], "leave_out": others, "k": 2, "rank": 2}
    twins = [tiny_vit(seed=1), tiny_vit(seed=2)]
    found = with_null(brdyn.token_dynamics, tiny_vit(), images, twins=twins, stream=STREAM, **options)
    assert list(found.null.tables) == ["dynamics"]
    assert found.null.notes == ("no modes of the twins: one of them was left without",)
    assert found.modes is not None
    found.save(tmp_path / "out")
    assert brdyn.read(tmp_path / "out") == found
    free = iter([0, 2**40, 2**40])  # the model itself
    without = with_null(brdyn.token_dynamics, tiny_vit(), images, twins=twins, stream=STREAM, **options)
    assert (without.modes, list(without.null.tables), without.null.notes) == (None, ["dynamics"], ())
    without.save(tmp_path / "without")
    assert brdyn.read(tmp_path / "without") == without
    content = json.loads((tmp_path / "out" / "dynamics.json").read_text())
    content["null"]["tables"] = ["nothing"]
    (tmp_path / "out" / "dynamics.json").write_text(json.dumps(content))
    with pytest.raises(UsageError, match="there is no table 'nothing' of untrained twins"):
        brdyn.read(tmp_path / "out")
