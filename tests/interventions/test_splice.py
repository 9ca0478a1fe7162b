"""Splicing: surrogates that are exact where they can be, errors as of full passes, and few block applications."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy import stats

import brdyn
from brdyn.data import load_images
from brdyn.errors import UsageError
from brdyn.interventions import splice, splice_skill
from brdyn.interventions.contexts import reorder
from brdyn.interventions.splice_cells import cells_of, every_span
from brdyn.interventions.splice_result import headlines
from brdyn.phases import segment
from brdyn.plots import plot_calibration, plot_exchange, plot_spans
from brdyn.random_keys import random_keys
from brdyn.raptor import Raptor
from brdyn.raptor.copied import CopyConfig
from brdyn.trajectory import Stream, capture, trajectories
from tests.conftest import tiny_vit
from tests.interventions.stub import StubViT

STREAM = Stream(workers=0)
WIDTH = 12  # of the stub


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twenty-four pictures of noise."""
    rng, root = np.random.default_rng(0), tmp_path_factory.mktemp("noise")
    for index in range(24):
        noise = Image.fromarray(rng.integers(0, 255, (4, 4, 3), dtype=np.uint8))
        noise.resize((40, 40), Image.Resampling.NEAREST).save(root / f"{index:02}.png")
    return root


def phases_of(*sizes):
    own = np.repeat(np.arange(len(sizes)), sizes)
    return segment((own[:, None] == own[None]).astype(float), k=len(sizes))


def spliced(model, folder, *sizes, **options):
    images = load_images(folder, model)
    return splice_skill(model, images, phases_of(*sizes), stream=STREAM, **options)


def rotation(seed):
    matrix = np.random.default_rng(seed).normal(size=(WIDTH, WIDTH))
    return torch.from_numpy(np.linalg.qr(matrix)[0]).float()


def linear(matrix, offset=0.0):
    return lambda state: state @ matrix + offset


def of_spans(found, surrogate, measure="skill"):
    """Values of all spans in the upper triangle."""
    matrix = found.matrix(surrogate, measure)
    return matrix[np.triu_indices(len(matrix))]


def test_an_affine_map_is_exact_in_a_linear_network(folder):
    """Each block another map: the affine surrogate is the span, and powers of one operator are not."""
    model = StubViT([linear(1.2 * rotation(seed), seed) for seed in range(4)])
    found = spliced(model, folder, 2, 2, surrogates=["mean", "affine", "power"], ridge=0.0)
    np.testing.assert_allclose(of_spans(found, "affine"), 1, atol=1e-5)
    np.testing.assert_allclose(of_spans(found, "affine", "r2"), 1, atol=1e-5)
    power = found.matrix("power")
    np.testing.assert_allclose(np.diag(power), 1, atol=1e-5)
    assert power[np.triu_indices(4, 1)].max() < 0.9
    assert of_spans(found, "mean").max() < 0.9
    assert of_spans(found, "identity").tolist() == [0] * 10


@pytest.mark.parametrize("matrix", [rotation(0), 0.9 * rotation(1) + 0.3 * torch.eye(WIDTH)])
def test_powers_and_repeats_are_exact_where_all_blocks_are_one_linear_map(matrix, folder):
    model = StubViT([linear(matrix)] * 4)
    found = spliced(model, folder, 4, surrogates=["affine", "power", "repeat", "exchange"], ridge=0.0)
    for name in ("affine", "power"):
        np.testing.assert_allclose(of_spans(found, name), 1, atol=1e-5)
    repeats = found.matrix("repeat")
    np.testing.assert_allclose(repeats[np.triu_indices(4, 1)], 1, atol=1e-9)
    assert np.isnan(np.diag(repeats)).all()  # a block once is the block itself
    others = found.exchanged()[~np.eye(4, dtype=bool)]
    np.testing.assert_allclose(others, 0, atol=1e-9)
    assert found.answer().startswith(
        "one layer's block does some of another's work: within a phase another layer's block makes 0% [0%, 0%]"
    )


def test_the_mean_update_is_exact_where_blocks_shift(folder):
    """Each token group by a vector of its own."""
    shift = torch.randn(3, 5, 1, generator=torch.Generator().manual_seed(0)) * torch.ones(WIDTH)
    shift[:, 1:] = shift[:, 1:2]
    model = StubViT([lambda state, add=add: state + add for add in shift])
    found = spliced(model, folder, 3, surrogates=["mean"])
    np.testing.assert_allclose(of_spans(found, "mean"), 1, atol=1e-9)


@pytest.mark.parametrize("factor", [1, 1 + 2**-23])  # the second moves by a rounding
def test_no_skill_over_a_block_that_does_nothing(factor, folder):
    model = StubViT([linear(rotation(0)), lambda state: state * factor, linear(rotation(1))])
    found = spliced(model, folder, 3)
    assert np.isnan(found.matrix("affine")[1, 1])
    assert np.isnan(found.exchanged()[1, [0, 2]]).all()
    assert np.isfinite(found.exchanged()[0, [1, 2]]).all()
    assert "no skill where doing nothing makes no error: blocks 2-2" in found.remarks()
    assert np.isfinite(found.rows("affine", "r2")["mean"]).all()
    assert found.shared_work()["cells"] == 4  # of the six pairs


def test_half_precision_hides_no_error_that_is_more_than_rounding(folder):
    """Blocks that change the state by a few hundredths have a skill in bfloat16, nearly that of float32."""
    turns = [rotation(seed) for seed in range(4)]
    blocks = [lambda state, turn=turn: state + 0.04 * (state @ turn.to(state.dtype)) for turn in turns]
    whole, half = (spliced(StubViT(blocks).to(dtype), folder, 2, 2, surrogates=["identity", "exchange"])
                   for dtype in (torch.float32, torch.bfloat16))  # fmt: skip
    assert 0.02 < (1 - whole.rows("identity", "r2")["mean"].max()) ** 0.5 < 0.1
    others = ~np.eye(4, dtype=bool)
    np.testing.assert_allclose(half.exchanged()[others], whole.exchanged()[others], rtol=0.15)
    assert half.answer().partition(":")[0] == whole.answer().partition(":")[0]


def test_where_no_block_does_anything_nothing_is_told(folder):
    found = spliced(StubViT([lambda state: state] * 4), folder, 2, 2, surrogates=["identity", "exchange"])
    said = found.summary()
    assert "nan" not in said
    assert found.answer() == (
        "whether one layer's block does another's work cannot be told: doing nothing in a phase is no error"
    )


def test_whose_work_a_block_does_by_hand(folder):
    """Blocks that scale by c: another's makes the error (c_m - c_l)^2 / (c_l - 1)^2, in every image alike."""
    scales = [2.0, 1.5, 3.0]
    model = StubViT([lambda state, by=by: by * state for by in scales])
    found = spliced(model, folder, 2, 1, surrogates=["exchange"])
    expected = [[((m - c) / (c - 1)) ** 2 if m != c else np.nan for m in scales] for c in scales]
    np.testing.assert_allclose(found.exchanged(), expected, rtol=1e-5)
    assert found.calibration is None
    within = [expected[0][1], expected[1][0]]
    across = [expected[0][2], expected[1][2], expected[2][0], expected[2][1]]
    for where, values in {"within phases": within, "across phases": across, "layers 1-2": within}.items():
        row = found.shared_work(where)
        assert row["cells"] == len(values)
        # Pairs of errors are resampled together: a ratio that is that of every image has no spread.
        np.testing.assert_allclose(row[["mean", "low", "high"]].astype(float), np.mean(values), rtol=1e-5)
    assert found.shared_work("across minus within")["mean"] == pytest.approx(np.mean(across) - np.mean(within))
    assert found.test.within == pytest.approx(np.mean(within))
    assert found.test.across == pytest.approx(np.mean(across))
    assert found.answer().startswith("one layer's block does some of another's work: within a phase")  # 0.625


def test_it_can_say_no(folder):
    """Blocks that undo each other: another's makes four times the error of doing nothing."""
    model = StubViT([lambda state: state + 1, lambda state: state - 1])
    found = spliced(model, folder, 2, surrogates=["exchange"])
    assert found.shared_work()["mean"] == pytest.approx(4)
    assert found.answer().startswith("no: one layer's block does worse than nothing in another's place")
    assert "no phase has two layers" in spliced(model, folder, 1, 1, surrogates=["exchange"]).answer()


def expected_errors(model, images, order):
    """Squared errors of the last state by image and group, of a full pass with the blocks in this order."""
    clean = torch.cat([one.states[-1] for one in trajectories(model, images, stream=STREAM)]).double()
    with reorder(model, order):
        changed = torch.cat([one.states[-1] for one in trajectories(model, images, stream=STREAM)]).double()
    return (changed - clean).square(), clean


def test_errors_are_those_of_full_passes(folder):
    """Deleting, repeating and exchanging blocks, and R² from its definition; fidelity of a group is of its tokens."""
    model = tiny_vit(depth=4)
    images = load_images(folder, model, n=6)
    found = splice_skill(model, images, phases_of(2, 2), surrogates=["repeat", "exchange"], stream=STREAM)
    nothing, clean = expected_errors(model, images, [1, 4])  # instead of blocks 2 and 3
    again, _ = expected_errors(model, images, [1, 2, 2, 4])
    alone, _ = expected_errors(model, images, [1, 3, 4])
    other, _ = expected_errors(model, images, [1, 4, 3, 4])
    for group, part in {**model.tokens.groups, "all": slice(None)}.items():
        truth, row = clean[:, part].flatten(0, 1), {"group": group, "measure": "skill"}
        expected = 1 - again[:, part].sum() / nothing[:, part].sum()
        assert found.matrix("repeat", **row)[1, 2] == pytest.approx(float(expected), rel=1e-4)
        expected = 1 - nothing[:, part].sum() / (truth - truth.mean(0)).square().sum()
        assert found.matrix("identity", "r2", group)[1, 2] == pytest.approx(float(expected), rel=1e-4)
        expected = other[:, part].sum() / alone[:, part].sum()
        assert found.exchanged(group)[1, 3] == pytest.approx(float(expected), rel=1e-4)


def test_maps_are_those_of_least_squares(folder):
    """One span, from the tokens of the fitted images, against NumPy."""
    model, ridge = tiny_vit(depth=3), 0.01
    images = load_images(folder, model)
    judged, fit_to = splice.apart(images, None, 0)
    options = {"surrogates": ["affine"], "spans": [(0, 2)], "ridge": ridge, "stream": STREAM}
    found = splice_skill(model, images, phases_of(2, 1), **options)

    def states(of):
        return [
            torch.cat(parts).double()
            for parts in zip(*(t.states for t in trajectories(model, of, stream=STREAM)), strict=True)
        ]

    start, _, end, _ = states(fit_to)
    group_of = np.repeat(np.arange(3), list(model.tokens.sizes().values()))
    means = {name: torch.stack([state[:, group_of == g].flatten(0, 1).mean(0) for g in range(3)])[group_of]
             for name, state in (("start", start), ("update", end - start))}  # fmt: skip
    x, y = (start - means["start"]).flatten(0, 1), (end - start - means["update"]).flatten(0, 1)
    second = x.T @ x
    matrix = torch.linalg.solve(second + ridge * second.diagonal().mean() * torch.eye(16).double(), x.T @ y)
    entering, _, _, last = states(judged)
    guess = entering + means["update"] + (entering - means["start"]) @ matrix
    with torch.no_grad():
        errors = [(model.blocks[2](state.float()) - last).square().sum() for state in (guess, entering)]
    assert found.matrix("affine")[0, 1] == pytest.approx(float(1 - errors[0] / errors[1]), abs=1e-5)


@pytest.fixture
def counted():
    """A small ViT, and the number of images that have gone through each of its blocks, call by call."""
    model, rows = tiny_vit(depth=6), []
    for block in model.blocks:
        block.register_forward_hook(lambda *given: rows.append(len(given[1][0])))
    return model, rows


@pytest.mark.parametrize("together", [1, 7, None])
def test_the_sweep_takes_a_sixth_of_the_square_of_the_depth(together, folder, counted):
    """Block applications of an image besides the clean pass: at most L^2 / 6 forwards for each surrogate."""
    model, rows = counted
    clean = capture(model, next(load_images(folder, model, n=4).batches(4, workers=0)))
    depth = model.depth
    maps = {splice.Cell("mean", *span, calibration=1): lambda state, layout: state for span in every_span(depth)}
    for names, expected in {
        ("identity",): 35,  # (L^3 - L) / 6
        ("identity", "mean"): 70,
        ("identity", "repeat"): 70,
        ("identity", "exchange"): 35 + 105,  # (L^3 - L) / 2, of L surrogates: each layer's block
    }.items():
        cells = list(cells_of(names, every_span(depth), depth, 1))
        rows.clear()
        splice.SpliceSweep(model, cells, maps, together=together).update(clean)
        assert sum(rows) == len(clean) * expected
        surrogates = len(names) if "exchange" not in names else 1 + depth
        assert expected / depth <= surrogates * depth**2 / 6


def test_the_whole_measurement_runs_each_image_once_besides(folder, counted):
    """Half of the images for maps, the others for sweeps; and phases with maps of fewer images: 3 + 0 blocks each."""
    model, rows = counted
    images = load_images(folder, model, n=16)
    splice_skill(model, images, phases_of(3, 3), surrogates=["mean", "affine"], stream=STREAM)
    assert sum(rows) == 16 * 6 + 8 * (3 * 35 + 2 * 3 * 3)


def test_blocks_are_exchanged_within_phases_alone(folder, counted):
    """Each number as where all are exchanged, for fewer passes; and there is nothing to test against."""
    model, rows = counted
    options = {"surrogates": ["exchange"], "spans": [(0, 2)]}
    every = spliced(model, folder, 2, 3, 1, **options)
    rows.clear()
    found = spliced(model, folder, 2, 3, 1, within=True, **options)
    of_single = sum(range(1, 6))  # blocks behind each of layers 1 to 5, which have another in their phase
    assert sum(rows) == 24 * (6 + of_single + 4 + 1 * (6 + 5) + 2 * (4 + 3 + 2))
    same = every.phases.labels[:, None] == every.phases.labels
    np.testing.assert_allclose(found.exchanged(), np.where(same, every.exchanged(), np.nan), rtol=1e-4)
    assert found.shared_work()["mean"] == pytest.approx(every.shared_work()["mean"], rel=1e-4)
    assert (every.test is None, found.test, found.shared_work("across phases")) == (False, None, None)
    assert "across" not in found.answer()


def test_the_size_of_batches_changes_nothing(folder):
    model = tiny_vit(depth=3)
    images = load_images(folder, model, n=14)
    found = [
        splice_skill(model, images, phases_of(2, 1), stream=Stream(workers=0, batch_size=size)) for size in (1, 3, 16)
    ]
    for other in found[1:]:
        pd.testing.assert_frame_equal(found[0].table, other.table, rtol=1e-4, atol=1e-5)
        pd.testing.assert_frame_equal(found[0].work, other.work, rtol=1e-4, atol=1e-5)


def test_maps_are_fitted_to_other_images(folder):
    model = tiny_vit(depth=2)
    images = load_images(folder, model, n=13)
    judged, fit_to = splice.apart(images, None, 3)
    assert sorted([*judged.indices(), *fit_to.indices()]) == images.indices().tolist()
    assert len(fit_to) == 7
    found = splice_skill(model, images, phases_of(2), surrogates=["mean"], seed=3, stream=STREAM)
    assert found.provenance.n_images == 6
    assert found.calibration.images == found.provenance.details["calibration"]["read"] == 7
    with pytest.raises(UsageError, match="7 images are both to fit to and to judge by"):
        splice_skill(model, images, phases_of(2), fit_images=fit_to, stream=STREAM)


def test_fewer_calibration_images_are_drawn_from_all_of_them(folder):
    """Whole phases, from an eighth on; maps whose rows are too few are left out."""
    model = tiny_vit(depth=3, registers=0)  # 17 tokens of width 16: one image is enough
    images = load_images(folder, model)
    found = splice_skill(model, images, phases_of(2, 1), surrogates=["mean", "affine"], stream=STREAM)
    rows = found.whole_phases()
    assert sorted(set(rows["calibration"])) == [0, 1, 3, 6, 12]
    assert len(rows) == 2 * (1 + 2 * 4)
    _, fit_to = splice.apart(images, None, 0)
    drawn = np.sort(random_keys(np.arange(12), 0).argsort()[:3])
    assert drawn.max() > 3
    few = splice_skill(
        model, splice.apart(images, None, 0)[0], phases_of(2, 1), surrogates=["mean"], fit_images=fit_to.take(drawn),
        stream=STREAM,
    )  # fmt: skip
    ours, theirs = (one.query("surrogate == 'mean' and calibration == 3") for one in (rows, few.whole_phases()))
    np.testing.assert_allclose(ours["mean"], theirs["mean"], rtol=1e-6)
    stub = StubViT([linear(rotation(0))] * 2)  # 5 tokens of width 12: three images are needed
    found = spliced(stub, folder, 2, surrogates=["mean", "affine"])
    assert found.whole_phases().groupby("surrogate")["calibration"].agg(list).to_dict() == {
        "identity": [0], "mean": [12, 1, 3, 6], "affine": [12, 3, 6],
    }  # fmt: skip


def test_what_the_head_says(folder):
    """The largest coordinate of cls, with every block a rotation; and a model without a head."""
    model = StubViT([linear(rotation(seed)) for seed in range(2)], classes=WIDTH)
    found = spliced(model, folder, 2, surrogates=["identity"])
    batch = next(load_images(folder, model).batches(24, workers=0))
    states = capture(model, batch).states
    same = [(states[-1][:, 0].argmax(-1) == state[:, 0].argmax(-1)).float().mean().item()
            for state in (model.blocks[1](states[0]), states[0], states[1])]  # fmt: skip
    agreement = found.matrix("identity", "agreement", "head")
    assert [agreement[0, 0], agreement[0, 1], agreement[1, 1]] == pytest.approx(same)
    for low, mean, high in found.full.query("measure == 'agreement'")[["low", "mean", "high"]].to_numpy():
        expected = stats.binomtest(round(24 * mean), 24).proportion_ci(method="wilson")
        assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-6)
    assert not found.notes
    without = spliced(tiny_vit(depth=2), folder, 2, surrogates=["identity"])
    assert without.notes == ("no agreement: the model has no classification head",)
    assert "agreement" not in set(without.table["measure"])


def test_a_raptors_block_stands_in_where_it_is_applied(folder):
    """One that repeats the first block of its stretch: where a span starts there it is the block repeated."""
    model = tiny_vit(depth=4)
    images = load_images(folder, model, n=4)
    raptor = Raptor(model, [0, 0, 0, 1], CopyConfig(width=16, heads=2))
    found = splice_skill(model, images, phases_of(2, 2), surrogates=["repeat"], raptor=raptor, stream=STREAM)
    skill, repeat = found.matrix("raptor"), found.matrix("repeat")
    assert np.argwhere(np.isfinite(skill)).tolist() == [
        [0, 0],
        [0, 1],
        [0, 2],
        [1, 1],
        [1, 2],
        [2, 2],
        [3, 3],
    ]
    np.testing.assert_allclose(skill[0, 1:3], repeat[0, 1:3], rtol=1e-5)
    np.testing.assert_allclose(skill[[0, 3], [0, 3]], 1, atol=1e-9)
    again, _ = expected_errors(model, images, [1, 1, 1, 4])
    nothing, _ = expected_errors(model, images, [1, 4])
    assert skill[1, 2] == pytest.approx(float(1 - again.sum() / nothing.sum()), rel=1e-4)
    other = tiny_vit(depth=4, seed=1)
    other.info = replace(other.info, digest="1" * 64)
    with pytest.raises(UsageError, match="the Raptor is of 'tiny_vit'"):
        splice_skill(other, images, phases_of(2, 2), raptor=raptor, stream=STREAM)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"spans": [(2, 2)]}, r"span 2-2 is not of two states s < e from 0 to 2"),
        ({"spans": [(0, 3)]}, r"span 0-3 is not of two states"),
        ({"spans": []}, "no spans to replace"),
        ({"surrogates": ["best"]}, "unknown surrogate 'best'"),
        ({"surrogates": ["raptor"]}, "give one by `raptor`"),
        ({"k": 3}, "k=3 phases need at least 3 layers"),
        ({"ridge": -1.0}, "ridge -1.0 is not a number from 0 up"),
        ({"n": 1}, "1 image cannot be fitted to and judged by"),
        ({"n": 3}, r"2 images of 5 tokens are 10 rows, .* width 12, which needs 13: at least 3 images to fit to"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked(options, words, folder):
    model = StubViT([linear(rotation(seed)) for seed in range(2)])
    images = load_images(folder, model, n=options.pop("n", None))
    with pytest.raises(UsageError, match=words):
        splice_skill(model, images, None, stream=STREAM, **options)


def test_nothing_to_exchange_within_phases_of_one_layer(folder):
    model = StubViT([linear(rotation(seed)) for seed in range(2)])
    with pytest.raises(UsageError, match="no phase has two layers to exchange blocks within"):
        spliced(model, folder, 1, 1, surrogates=["exchange"], within=True)
    found = spliced(model, folder, 1, 1, surrogates=["identity"])
    first, second = found.whole_phases("r2")["mean"]
    assert found.answer() == (
        f"no block was exchanged; without a whole phase R² is {(first + second) / 2:.2f} (median over phases)"
    )


def test_one_image_has_no_interval(folder):
    model = StubViT([linear(rotation(seed)) for seed in range(4)])
    images = load_images(folder, model, n=1)
    found = splice_skill(model, images, phases_of(2, 2), surrogates=["exchange"], stream=STREAM)
    assert "%" in found.answer()
    assert "nan" not in found.summary()


def test_three_images_are_enough_for_a_mean_update(folder):
    model = StubViT([linear(rotation(seed)) for seed in range(2)])
    found = splice_skill(model, load_images(folder, model, n=3), None, surrogates=["mean"], stream=STREAM)
    assert found.calibration.images == 2
    assert np.isnan(found.rows("mean")["low"]).all()  # judged by one image: no interval


def test_headlines_are_medians_within_and_across_phases(folder):
    model = tiny_vit(depth=3)
    found = spliced(model, folder, 2, 1)
    skill, ratio = found.matrix("affine"), found.exchanged()
    told = headlines(found.compared()["splice"], found.phases)
    within, across = [skill[0, 0], skill[0, 1], skill[1, 1], skill[2, 2]], [skill[0, 2], skill[1, 2]]
    assert told["median skill of one affine map within phases"] == pytest.approx(np.median(within))
    assert told["median skill of one affine map across phases"] == pytest.approx(np.median(across))
    within = 1 - np.array([ratio[0, 1], ratio[1, 0]])
    assert told["median skill of another layer's block within phases"] == pytest.approx(np.median(within))


def test_beside_twins(folder):
    """The mean of their matrices; a picture of it beside the model's."""
    model, twins = tiny_vit(depth=3), [tiny_vit(depth=3, seed=seed) for seed in (5, 6)]
    images, options = load_images(folder, model, n=6), {"surrogates": ["exchange"], "stream": STREAM}
    alone = [splice_skill(twin, images, phases_of(2, 1), **options).exchanged() for twin in twins]
    found = brdyn.with_null(splice_skill, model, images, phases_of(2, 1), twins=twins, **options)
    np.testing.assert_allclose(found.of_twins().exchanged(), np.mean(alone, 0), rtol=1e-6)
    panel = plot_exchange(found, title="a ViT").axes[1]
    assert panel.get_title() == "untrained twins (2): mean"
    np.testing.assert_allclose(panel.images[0].get_array().filled(np.nan), np.mean(alone, 0), rtol=1e-6)


def test_pictures_show_the_matrices(folder):
    found = spliced(tiny_vit(depth=3, registers=0), folder, 2, 1, surrogates=["mean", "exchange"])
    panels = plot_spans(found, "skill", title="a ViT").axes
    np.testing.assert_array_equal(panels[0].images[0].get_array().filled(np.nan), found.matrix("mean"))
    frames = [patch.get_bbox().bounds for patch in panels[0].patches[1::2]]
    assert frames == [(0.5, 0.5, 2, 2), (2.5, 2.5, 1, 1)]
    exchange = plot_exchange(found, title="a ViT").axes[0].images[0].get_array()
    np.testing.assert_array_equal(exchange.filled(np.nan), found.exchanged())
    axes = plot_calibration(found, title="a ViT").axes[0]
    rows = found.whole_phases().query("surrogate == 'mean' and phase == 1").sort_values("calibration")
    curve = next(line for line in axes.lines if line.get_marker() == "^")
    np.testing.assert_array_equal(curve.get_ydata(), rows["mean"])
    assert curve.get_xdata().tolist() == [1, 3, 6, 12]


def test_every_span_is_there(folder):
    found = spliced(tiny_vit(depth=4), folder, 2, 2, surrogates=["mean"])
    spans = list(zip(found.rows("mean")["start"], found.rows("mean")["end"], strict=True))
    assert spans == list(combinations(range(5), 2))
    assert brdyn.splice_skill is splice_skill
