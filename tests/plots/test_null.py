"""Untrained twins in pictures: the least and the largest of them, behind each curve, and named."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import to_rgb

import brdyn
from brdyn.plots import draw
from brdyn.plots.null import HATCH, draw_twins
from brdyn.plots.style import GROUP_COLOURS, new_figure
from brdyn.trajectory import Stream
from tests.conftest import tiny_vit

STREAM = Stream(workers=0)
MEASURES = [
    (brdyn.token_dynamics, {"measures": ["speed", "modes"], "rank": 2}),
    (brdyn.perturbation_repair, {"eps": [0.2], "starts": [0, 1, 3], "targets": ["cls"]}),
    (brdyn.layer_surgery, {"kinds": ["swap", "delete", "shuffle"], "draws": 2}),
]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    from PIL import Image

    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for index in range(8):
        Image.fromarray(rng.integers(0, 255, (34, 40, 3), dtype=np.uint8)).save(folder / f"{index}.png")
    images, twins = brdyn.load_images(folder, tiny_vit()), [tiny_vit(seed=1), tiny_vit(seed=2)]
    return [
        brdyn.with_null(measure, tiny_vit(), images, k=2, twins=twins, stream=STREAM, **options)
        for measure, options in MEASURES
    ]


def hatched(axes):
    """The bands of twins in a panel by colour: horizontal places, and from where to where."""
    found = []
    for one in axes.collections:
        if isinstance(one, PolyCollection) and one.get_hatch() == HATCH:
            points = one.get_paths()[0].vertices
            spans = {x: (points[points[:, 0] == x, 1].min(), points[points[:, 0] == x, 1].max()) for x in points[:, 0]}
            found.append((tuple(one.get_edgecolor()[0][:3]), spans))
    return found


def legends(figure):
    found = [*figure.legends, *(axes.get_legend() for axes in figure.axes if axes.get_legend())]
    return [text.get_text() for legend in found for text in legend.get_texts()]


def test_the_band_of_a_curve_is_that_of_the_twins(results):
    dynamics = results[0]
    figure = draw(dynamics)["speed"]
    rows = dynamics.null.tables["dynamics"].query("statistic == 'speed'")
    bands = dict(hatched(figure.axes[0]))
    assert set(bands) == {to_rgb(GROUP_COLOURS[group]) for group in ("cls", "registers", "patches")}
    for group in ("cls", "registers", "patches"):
        by_layer = rows[rows["group"] == group].groupby("layer")["mean"]
        for update, span in bands[to_rgb(GROUP_COLOURS[group])].items():
            assert span == pytest.approx((by_layer.min()[update], by_layer.max()[update]))


def test_of_noise_at_the_last_layer(results):
    repair = results[1]
    figure = draw(repair)["final_angle"]
    rows = repair.null.tables["perturb"].query("layer == 4 and group == 'cls'").groupby("start")["mean"]
    spans = dict(hatched(figure.axes[0]))[to_rgb(GROUP_COLOURS["cls"])]
    assert spans == {start: pytest.approx((rows.min()[start], rows.max()[start])) for start in (0, 1, 3)}


def test_of_one_size_of_noise_which_is_said(results):
    repair = results[1]
    largest = repair.angles["eps"].max()
    both = pd.concat([repair.angles, repair.angles.assign(eps=largest / 2)])
    assert "untrained twins (2)" in legends(draw(repair)["final_angle"])
    assert f"untrained twins (2), eps {largest:g}" in legends(draw(replace(repair, angles=both))["final_angle"])


def test_of_deleted_layers_and_shuffles(results):
    surgery = results[2]
    figure = draw(surgery)["layers"]
    rows = surgery.null.tables["interventions"].query("measure == 'relative_error'")
    deleted = rows.query("kind == 'delete' and readout == 'cls'").groupby("layers")["mean"]
    spans = dict(hatched(figure.axes[0]))[to_rgb(GROUP_COLOURS["cls"])]
    assert spans == {n: pytest.approx((deleted.min()[f"{n}"], deleted.max()[f"{n}"])) for n in (1, 2, 3, 4)}
    boxes = [patch for patch in figure.axes[1].patches if patch.get_hatch() == HATCH]
    shuffled = rows[rows["kind"].str.startswith("shuffle")]
    means = shuffled.groupby(["kind", "readout", "phase", "twin"])["mean"].mean()
    spans = means.groupby(["kind", "readout", "phase"]).agg(["min", "max"]).to_numpy()
    drawn = [(box.get_y(), box.get_y() + box.get_height()) for box in boxes]
    np.testing.assert_allclose(sorted(drawn), sorted(map(tuple, spans)))


def test_below_a_matrix_is_the_mean_of_the_twins(results):
    surgery = results[2]
    figure = draw(surgery)["swap"]
    images = [axes.images[0].get_array() for axes in figure.axes if axes.images]
    assert len(images) == 4
    rows = surgery.null.tables["interventions"].query(
        "kind == 'swap' and readout == 'patches' and measure == 'relative_error' and layers == '1,3'"
    )
    assert images[3][0, 2] == pytest.approx(rows["mean"].mean())
    assert images[1][0, 2] == pytest.approx(surgery.matrix("swap", "patches")[0, 2])
    assert [axes.get_title() for axes in figure.axes[:4]][3] == "patches, untrained twins (2): mean"


def test_every_picture_of_curves_names_the_twins(results):
    named = {
        name
        for result in results
        for name, figure in draw(result).items()
        if "untrained twins (2)" in legends(figure)
        or any("untrained twins (2)" in axes.get_title() for axes in figure.axes)
    }
    assert named == {"speed", "modes", "repair", "final_angle", "growth", "swap", "layers"}


@pytest.mark.parametrize("high", [1.0, 2.0])
def test_twins_at_one_place_are_seen(high):
    """Of one twin a mark, of several a line from the least to the largest."""
    axes = new_figure(5, 3).subplots()
    draw_twins(axes, pd.DataFrame({"layer": [3], "low": [1.0], "high": [high]}), "layer", "black")
    marks = [line.get_xydata().tolist() for line in axes.lines if line.get_marker() == "_"]
    bars = [one.get_segments() for one in axes.collections if isinstance(one, LineCollection)]
    if high == 1:
        assert marks == [[[3, 1]]]
    else:
        np.testing.assert_allclose(bars, [[[[3, 1], [3, 2]]]])
