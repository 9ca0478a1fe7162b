"""The page on being fooled: networks that differ as it says, what every statistic says of them, and its pictures."""

import sys

import numpy as np
import pytest
from matplotlib.figure import Figure

from analyses import fooled, phase_test
from analyses.fooled import Case, kernels, picture, real, simulated, verdict
from brdyn import segment
from tests.cli.commands import ROOT


@pytest.fixture(scope="module")
def cases():
    return {case.title: case for case in simulated()}


def test_blocks_are_the_rough_drift_but_for_two_steps():
    steps = {
        name: -np.log(np.diagonal(kernel(np.random.default_rng(fooled.SEED)), 1))
        for name, kernel in kernels().items()
        if name != "noise"
    }
    for jump in (3, 6, 12):
        ratio = steps[f"blocks_{jump}"] / steps["rough"]
        np.testing.assert_allclose(ratio / ratio[0], np.where(np.isin(np.arange(11), [3, 7]), jump, 1))
    assert np.ptp(steps["steady"]) < 1e-9 < np.ptp(steps["accelerating"])


def test_the_test_alone_tells_drifts_from_blocks(cases):
    """What the page says of the recorded networks."""
    told = {title: case.told() for title, case in cases.items()}
    without = [told[title] for title in fooled.WITHOUT.values()]
    blocks = [told[title] for title in fooled.BLOCKS.values()]
    assert [one["layers"] for one in without + blocks] == [()] * 4 + [(4, 8)] * 3
    assert all(one["gain"] > 1 and one["stability"] == 1 for one in without + blocks)
    assert min(one["gain"] for one in without) > max(one["gain"] for one in blocks)
    assert max(one["z"] for one in without) < 1.5
    assert [one["found"] for one in blocks] == sorted(one["found"] for one in blocks)


def test_drawn_again_they_are_judged_alike(tmp_path, monkeypatch, cases):
    monkeypatch.setattr(fooled, "PICTURES", tmp_path)
    monkeypatch.setattr(Figure, "savefig", lambda _, path, **how: path.touch())
    monkeypatch.setattr(sys, "argv", ["it", "--out", str(tmp_path), "--only", "rough,blocks_3"])
    fooled.main()
    again = simulated(tmp_path)
    assert [case.title for case in again] == ["rough drift", "3 blocks, steps x 3"]
    for case in again:
        assert verdict(case) == verdict(cases[case.title])
        assert case.told()["boundaries"] == (4, 8)
    assert {path.name for path in tmp_path.glob("*.png")} == {"fooled_simulated.png", "fooled_networks.png"}


def test_rates_are_the_recorded_ones_of_twelve_layers_and_three_blocks():
    rates = fooled.rates()
    assert [row["title"] for row in rates] == [
        *phase_test.DRIFTS,
        "geodesic",
        "noise",
        *(f"noise of width {width}" for width in phase_test.NARROW),
        *fooled.BLOCKS.values(),
    ]
    assert {row["layers"] for row in rates} == {12}


def test_sizes_are_of_every_family_at_every_depth():
    sizes = fooled.sizes()
    assert list(sizes) == list(phase_test.structureless(12))
    for family, rows in sizes.items():
        assert [(row["family"], row["layers"]) for row in rows] == [(family, 12), (family, 24), (family, 40)]


def test_pages_say_how_stable_cuts_are_at_every_depth():
    means = fooled.stabilities()
    assert list(means) == [12, 24, 40]
    assert all(set(of) == {"drifts", "wide noise", "narrow noise", "blocks"} for of in means.values())
    low, high = (
        min(means[layers]["drifts"][0] for layers in (12, 24)),
        max(means[12]["drifts"][1], means[24]["drifts"][1]),
    )
    phases, page = ((ROOT / "docs" / "guide" / name).read_text() for name in ("phases.md", "fooled.md"))
    told = " to ".join(map("{:.2f}".format, means[40]["drifts"]))
    blocks = " to ".join(map("{:.2f}".format, means[40]["blocks"]))
    assert f"stability of {low:.2f} to {high:.2f} at L = 12 and 24" in phases
    assert f"of {told} at L = 40 (blocks: {blocks})" in phases
    assert f"at 40 layers {told} for drifts" in page
    assert f"{blocks} for two to four blocks." in page


def test_real_networks_have_no_matrix_where_it_is_not_packaged():
    given = {case.title: case.matrix for case in real()}
    assert list(given)[:2] == ["imgfocus_vits14", "DINOv2 ViT-B/14 with registers"]
    assert given["DINOv2 ViT-B/14 with registers"] is None
    assert given["imgfocus_vits14"].shape == (12, 12)


def test_a_picture_shows_what_each_statistic_says():
    depth = np.array([0, 1, 2, 3, 10, 11, 12, 13, 20, 21, 22, 23.0])
    matrix = np.exp(-np.abs(depth[:, None] - depth) / 20)
    case = Case("blocks", segment(matrix), matrix, "10 images")
    hidden = Case("not ours", case.phases, None, "no images")
    figure = picture([case, hidden])
    assert isinstance(figure, Figure)
    cut, gain, test, empty, *_ = figure.axes
    np.testing.assert_array_equal(cut.images[0].get_array(), matrix)
    assert cut.get_title() == "best cut [4, 8]"  # no images, no stability
    shown, drift, chosen = gain.lines
    found = case.phases.segmentations
    np.testing.assert_allclose(shown.get_ydata(), [100 * found[k].cut_share for k in range(1, 9)])
    np.testing.assert_allclose(drift.get_ydata(), [100 * found[k].drift_share for k in range(1, 9)])
    assert chosen.get_xdata()[0] == case.phases.k
    assert test.get_title() == "test: 3 phases, after layers 4, 8"
    assert np.isnan(empty.images[0].get_array().astype(float).filled(np.nan)).all()
    assert (cut.xaxis.label.get_visible(), empty.xaxis.label.get_visible()) == (False, True)
