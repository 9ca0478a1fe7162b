"""Dynamic mode decomposition: a linear system comes back, PyDMD agrees, baselines are what they are called."""

import numpy as np
import pytest
import torch

from brdyn.errors import UsageError
from brdyn.measures.linear_maps import Shifted, least_squares, outer_sum
from brdyn.measures.modes import DynamicModes, needed_pairs
from brdyn.models import TokenLayout
from brdyn.random_keys import one_in
from brdyn.trajectory import Trajectory

HELD = one_in(5, np.arange(60), seed=0)  # of the first 60 images
LAYOUT = TokenLayout.with_prefix((2, 3), {"cls": 1})
WIDTH = 5


def feed(states, boundaries=(), sizes=None, **options):
    metric = DynamicModes(LAYOUT, len(states) - 1, states.shape[-1], boundaries, **options)
    for part in torch.arange(states.shape[1]).split(sizes or states.shape[1]):
        metric.update(Trajectory(states[:, part], LAYOUT, part))
    return metric


def error(found, phase, group, steps, predictor, measure="relative_error"):
    rows = found.errors.query(
        "phase == @phase and group == @group and steps == @steps and predictor == @predictor and measure == @measure"
    )
    assert len(rows) == 1
    return rows["mean"].item()


@pytest.fixture
def linear():
    """Two phases of three layers, each one linear operator on what differs from a large mean; 40 images of 7 tokens."""
    generator = torch.Generator().manual_seed(0)
    operators = [torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=generator))[0] * scale for scale in (0.9, 1.1)]
    states = [torch.randn(40, 7, WIDTH, generator=generator)]
    for operator in operators:
        for _ in range(3):
            states.append(states[-1] @ operator.T)
    means = 10 * torch.randn(len(states), 1, 1, WIDTH, generator=generator)
    return torch.stack(states) + means, operators


def centred(states, group, count=40):
    """Tokens of a group without their mean over fitted images, by layer, float64."""
    tokens = states[:, :count, LAYOUT[group]].double()
    return tokens - tokens[:, ~HELD[:count]].mean((1, 2), keepdim=True)


def test_a_linear_system_comes_back(linear):
    states, operators = linear
    found = feed(states, (3,), ridge=0).details((3,))
    for phase, operator in enumerate(operators, 1):
        for group in LAYOUT.groups:
            np.testing.assert_allclose(found.operators[phase, group], operator, atol=1e-4)
            spectrum = found.spectrum.query("phase == @phase and group == @group")
            np.testing.assert_allclose(spectrum["modulus"], (0.9, 1.1)[phase - 1], rtol=1e-4)
            for steps in (1, 2, 3):
                assert error(found, phase, group, steps, "operator") < 1e-4
                assert error(found, phase, group, steps, "endpoint") < 1e-4
                tokens = centred(states, group)[:, HELD[:40]].flatten(2)
                truth, still = tokens[(phase - 1) * 3 + steps], tokens[(phase - 1) * 3]
                wrong = ((truth - still).norm(dim=1) / truth.norm(dim=1)).mean()
                assert error(found, phase, group, steps, "identity") == pytest.approx(wrong.item(), rel=1e-4)
                share = 1 - (truth - still).square().sum() / truth.square().sum()
                assert error(found, phase, group, steps, "identity", "r2") == pytest.approx(share.item(), rel=1e-4)
                assert error(found, phase, group, steps, "operator", "cosine") == pytest.approx(1, abs=1e-5)
    assert (found.n_fitted, found.n_held_out) == (32, 8)


def test_all_pairs_give_what_given_phases_give(linear):
    states = linear[0] + 0.1 * torch.randn(linear[0].shape, generator=torch.Generator().manual_seed(1))
    given = feed(states, (2, 5)).details((2, 5))
    found = feed(states, None, sizes=7).details((2, 5))
    np.testing.assert_allclose(found.errors["mean"], given.errors["mean"], rtol=1e-5)
    np.testing.assert_allclose(found.spectrum["modulus"], given.spectrum["modulus"], rtol=1e-4, atol=1e-6)
    assert len(list(needed_pairs(12, None))) == 12 + 78
    assert len(list(needed_pairs(12, (6,)))) == 12 + 12 + 5 + 5


@pytest.mark.parametrize("rank", [2, WIDTH])
def test_pydmd_finds_the_same_operator(linear, rank):
    pydmd = pytest.importorskip("pydmd")
    states = linear[0] + 0.2 * torch.randn(linear[0].shape, generator=torch.Generator().manual_seed(2))
    found = feed(states, (3,), tokens_per_image=6, ridge=0, rank=rank).details((3,))
    tokens = centred(states, "patches")[:, ~HELD[:40]]
    before, after = (
        torch.cat([tokens[layer].flatten(0, 1) for layer in layers]).numpy().T for layers in ((0, 1, 2), (1, 2, 3))
    )
    reference = pydmd.DMD(svd_rank=rank).fit(before, after)
    ours = found.spectrum.query("phase == 1 and group == 'patches'")["modulus"].to_numpy()
    np.testing.assert_allclose(ours[:rank], np.sort(np.abs(reference.eigs))[::-1], rtol=1e-5)
    np.testing.assert_allclose(ours[rank:], 0, atol=1e-9)
    modes, values = reference.modes, reference.eigs
    operator = (modes * values) @ np.linalg.pinv(modes)
    if rank == WIDTH:
        np.testing.assert_allclose(found.operators[1, "patches"], operator.real, atol=1e-5)


def test_ridge_against_stacked_rows():
    """Ridge regression as plain least squares with the penalty's rows stacked below the data."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 4)), rng.normal(size=(30, 4))
    ridge = 0.3
    penalty = ridge * np.trace(x.T @ x) / 4
    stacked = np.linalg.lstsq(
        np.concatenate([x, penalty**0.5 * np.eye(4)]), np.concatenate([y, np.zeros((4, 4))]), rcond=None
    )[0].T
    (found,) = least_squares(torch.from_numpy(x.T @ x), [torch.from_numpy(x.T @ y)], ridge, None)
    np.testing.assert_allclose(found, stacked, atol=1e-10)


def test_the_endpoint_map_is_the_best_linear_map():
    """A phase whose second step undoes nonlinearly what the first did: one operator cannot, the endpoint map can."""
    generator = torch.Generator().manual_seed(3)
    start = torch.randn(60, 7, WIDTH, generator=generator)
    states = torch.stack([start, start.abs(), 2 * start])
    found = feed(states, ridge=0).details(())
    assert error(found, 1, "patches", 2, "endpoint") < 1e-5
    assert error(found, 1, "patches", 2, "endpoint", "r2") == pytest.approx(1, abs=1e-9)
    assert error(found, 1, "patches", 2, "operator") > 0.3
    assert error(found, 1, "patches", 2, "identity") == pytest.approx(0.5, abs=1e-5)


@pytest.mark.parametrize(("ridge", "rank"), [(0.5, None), (0.0, 2), (0.5, 2)])
def test_ridge_and_rank_hold_for_the_endpoint_map(linear, ridge, rank):
    """Stacked rows in the leading right singular directions of the fitted tokens, for 1 and 3 layers ahead."""
    states = linear[0] + 0.1 * torch.randn(linear[0].shape, generator=torch.Generator().manual_seed(5))
    found = feed(states, (3,), ridge=ridge, rank=rank).details((3,))
    fitted, tokens = ~HELD[:40], centred(states, "patches").numpy()
    before = tokens[3][fitted].reshape(-1, WIDTH)
    directions = np.linalg.svd(before)[2][: rank or WIDTH].T
    penalty = ridge * (before**2).sum() / WIDTH
    rows = np.concatenate([before @ directions, penalty**0.5 * np.eye(directions.shape[1])])
    for steps in (1, 3):
        after = tokens[3 + steps][fitted].reshape(-1, WIDTH)
        targets = np.concatenate([after, np.zeros((directions.shape[1], WIDTH))])
        guess = tokens[3][~fitted] @ directions @ np.linalg.lstsq(rows, targets, rcond=None)[0]
        truth = tokens[3 + steps][~fitted]
        expected = np.linalg.norm(guess - truth, axis=(1, 2)) / np.linalg.norm(truth, axis=(1, 2))
        assert error(found, 2, "patches", steps, "endpoint") == pytest.approx(expected.mean(), rel=1e-4)
        assert expected.mean() > 0.15  # neither is without effect


def test_errors_come_with_their_interval():
    """Fitted states have mean 0; two held-out ones shrink to 1/2 and to 1/4: the identity errs by 1 and by 3."""
    states = torch.zeros(2, 10, 7, WIDTH)
    first, second = HELD[:10].nonzero()[0]
    states[0, [first, second]] = 1
    states[1, first], states[1, second] = 0.5, 0.25
    found = feed(states).details(())
    rows = found.errors.query("predictor == 'identity' and group == 'patches'").set_index("measure")
    row = rows.loc["relative_error"]
    assert (row["mean"], row["n_images"]) == (pytest.approx(2), 2)
    assert row["sd"] == pytest.approx(2**0.5)  # of 1 and 3, with one degree of freedom
    assert (row["low"], row["high"]) == pytest.approx((2 - 12.706205, 2 + 12.706205))
    assert rows.loc["r2", "mean"] == pytest.approx(1 - (0.25 + 0.5625) / (0.25 + 0.0625))
    assert np.isnan(rows.loc["r2", "low"])


def test_the_mean_state_alone_looks_good_where_states_are_not_centred():
    """Each image is the mean (3, 0, ...) and 4 units of its own: centred nothing is known, and the cosine is 3/5."""
    states = torch.zeros(2, 10, 7, WIDTH)
    states[:, :, :, 0] = 3
    fitted, held = (part.nonzero()[0] for part in (~HELD[:10], HELD[:10]))
    for place, image in enumerate(fitted):  # their mean is that of all
        states[:, image, :, 1] = 4 * (-1) ** place
    states[0, held, :, 2], states[1, held, :, 3] = 4, 4
    found = feed(states, ridge=0).details(())
    for group in LAYOUT.groups:
        for measure, expected in (("raw_cosine", 0.6), ("cosine", 0), ("r2", 0), ("relative_error", 1)):
            assert error(found, 1, group, 1, "mean", measure) == pytest.approx(expected, abs=1e-6), measure
        assert error(found, 1, group, 1, "identity", "raw_cosine") == pytest.approx(9 / 25)
        assert error(found, 1, group, 1, "identity", "r2") == pytest.approx(-1)
        assert error(found, 1, group, 1, "endpoint", "r2") == pytest.approx(0)  # of direction 2 nothing was seen


def test_a_state_that_is_the_same_for_all_images_predicts_the_mean():
    """As cls of the embedding: what rounding leaves of it is not fitted."""
    generator = torch.Generator().manual_seed(6)
    states = torch.randn(2, 40, 7, WIDTH, generator=generator)
    same = torch.randn(WIDTH, generator=generator) * 1e3
    states[0] = same * (1 + 1e-7 * torch.randn(40, 7, WIDTH, generator=generator))
    found = feed(states, sizes=3, ridge=0).details(())
    for predictor in ("operator", "endpoint"):
        assert error(found, 1, "cls", 1, predictor, "r2") == pytest.approx(0, abs=1e-12)
        assert not found.operators[1, "cls"].any()


def test_sums_of_products_survive_a_large_mean():
    """Where float32 products of the rows as they are would lose what differs."""
    generator = torch.Generator().manual_seed(7)
    x, y = (1e4 + torch.randn(200, 3, generator=generator) for _ in range(2))
    found = outer_sum(Shifted.of(x), Shifted.of(y))
    exact = x.double().T @ y.double()
    assert (found - exact).abs().max() < 1e-4  # of 2e10: the spread of 200 is kept
    assert ((x.T @ y).double() - exact).abs().max() > 100
    torch.testing.assert_close(Shifted.of(x).total, x.double().sum(0))


@pytest.mark.parametrize(("count", "rank", "marked"), [(10, None, []), (5, None, ["cls"]), (5, 4, [])])
def test_underdetermined_fits_are_marked(count, rank, marked):
    """Of five images four are fitted: 4 rows of cls for 5 directions, 24 of the patches."""
    found = feed(torch.randn(2, count, 7, WIDTH), rank=rank).details(())
    assert found.fitted_rows == {
        "cls": count - HELD[:count].sum(),
        "patches": 6 * (count - HELD[:count].sum()),
    }
    assert list(found.underdetermined) == marked
    if marked:
        assert found.underdetermined["cls"] == "underdetermined: 4 rows for 5 directions"


def test_held_out_images_are_not_fitted(linear):
    """Held-out images follow another law: the operator must not know of it."""
    states, operators = linear
    states = states.clone()
    states[1:, HELD[:40]] = -states[0, HELD[:40]]
    found = feed(states, (3,), ridge=0).details((3,))
    np.testing.assert_allclose(found.operators[1, "cls"], operators[0], atol=1e-4)
    assert error(found, 1, "cls", 1, "operator") > 0.5


def test_samples_are_bounded_and_do_not_depend_on_batches():
    generator = torch.Generator().manual_seed(4)
    states = torch.randn(3, 500, 7, WIDTH, generator=generator)
    limits = {"held_out_images": 10, "held_out_tokens": 2, "tokens_per_image": 3, "seed": 5}
    whole, parts = feed(states, **limits), feed(states, sizes=13, **limits)
    assert sum(map(len, parts.held_patches)) <= 20 + 13
    assert sum(map(len, parts.pending_patches)) < parts.flush_at
    np.testing.assert_allclose(whole.details(()).errors["mean"], parts.details(()).errors["mean"], rtol=1e-4)
    assert whole.details(()).n_held_out == 10
    assert parts.compute()["held_patches"].shape == (10, 2, 3, WIDTH)


def test_what_cannot_be_fitted():
    states = torch.randn(3, 1, 7, WIDTH)
    with pytest.raises(UsageError, match="at least 5 readable images"):
        feed(states).details(())
    ten = torch.randn(3, 10, 7, WIDTH)
    with pytest.raises(UsageError, match="ridge"):
        feed(ten, ridge=-1)
    with pytest.raises(UsageError, match="rank 9"):
        feed(ten, rank=9)
    with pytest.raises(UsageError, match="GiB; give `phases`"):
        DynamicModes(LAYOUT, 40, 100_000)
