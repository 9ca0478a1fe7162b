"""Measures of motion on cases with a known answer, and against direct float64 computation."""

import math
import re

import numpy as np
import pytest
import torch
from torch.nn import functional

from brdyn.data import load_images
from brdyn.errors import UsageError
from brdyn.measures.alignment import phase_alignment
from brdyn.measures.basins import AngularBasins
from brdyn.measures.contract import COLUMNS
from brdyn.measures.convergence import DirectionalConvergence
from brdyn.measures.dynamics import token_dynamics
from brdyn.measures.estimation import PhaseEstimation
from brdyn.measures.modes import DynamicModes
from brdyn.measures.moments import RunningMoments
from brdyn.measures.norm import TokenNorm
from brdyn.measures.speed import AngularSpeed, TurningAngle
from brdyn.measures.update_field import UpdateField, ranks, singular_values
from brdyn.models import TokenLayout
from brdyn.phases import segment
from brdyn.trajectory import Stream, Trajectory, capture
from tests.cli.commands import ROOT
from tests.conftest import needs_offline

LAYOUT = TokenLayout.with_prefix((2, 3), {"cls": 1, "registers": 2})
DEPTH = 5
MEASURES = (TokenNorm, DirectionalConvergence, AngularSpeed, TurningAngle, UpdateField, PhaseEstimation)


def feed(metric, states, sizes=None, layout=LAYOUT):
    start = 0
    for size in sizes or (states.shape[1],):
        metric.update(Trajectory(states[:, start : start + size], layout, torch.arange(start, start + size)))
        start += size
    return metric


def curve(metric, statistic, group):
    rows = metric.table()
    rows = rows[(rows["statistic"] == statistic) & (rows["group"] == group)]
    return rows["mean"].to_numpy()


@pytest.fixture
def states():
    """Random walks `(L + 1, B, N, D)`."""
    return torch.randn(DEPTH + 1, 7, 9, 8, generator=torch.Generator().manual_seed(0)).cumsum(0)


@pytest.mark.parametrize(("angle", "grows"), [(0.3, 1.1), (1e-4, 1.0)])
def test_rotation_at_a_constant_angle(angle, grows):
    """Every token turns by the same angle in a plane of its own and grows: speed is the angle."""
    planes = torch.linalg.qr(torch.randn(4, 9, 8, 2, generator=torch.Generator().manual_seed(1)).double())[0]
    turns = angle * torch.arange(DEPTH + 1, dtype=torch.float64)
    directions = torch.stack([turns.cos(), turns.sin()], -1)
    growth = grows ** torch.arange(DEPTH + 1, dtype=torch.float64)
    states = (torch.einsum("bndp,lp->lbnd", planes, directions) * growth[:, None, None, None]).float()
    speed = feed(AngularSpeed(LAYOUT, DEPTH), states)
    for group in LAYOUT.groups:
        np.testing.assert_allclose(curve(speed, "speed", group), angle, rtol=2e-3)
    convergence = feed(DirectionalConvergence(LAYOUT, DEPTH), states)
    expected = np.cos(angle * (DEPTH - np.arange(DEPTH + 1)))
    np.testing.assert_allclose(curve(convergence, "convergence", "cls"), expected, atol=1e-6)
    norm = feed(TokenNorm(LAYOUT, DEPTH), states)
    np.testing.assert_allclose(curve(norm, "norm", "registers"), growth, rtol=1e-6)


def test_an_update_has_the_number_of_its_block():
    """As on all pages: update l is from state l - 1 to state l, and turning l is from update l to the next."""
    states = torch.ones(DEPTH + 1, 2, 9, 4)
    states[2:, ..., 0], states[3:, ..., 1] = -3.0, 5.0  # blocks 2 and 3 move, along two axes
    for kind, name, there in ((AngularSpeed, "speed", [2, 3]), (TurningAngle, "turning", [2])):
        rows = feed(kind(LAYOUT, DEPTH), states).table()
        cls = rows[(rows["group"] == "cls") & (rows["statistic"] == name)].set_index("layer")["mean"].fillna(0)
        assert cls.index[0] == 1
        assert cls.index[cls > 0.1].tolist() == there
    written = [*ROOT.glob("docs/**/*.md"), *ROOT.glob("brdyn/**/*.py")]
    other = re.compile(r"(d_l|s_l)\b.{0,40}a_\{?l ?\+ ?1\b")
    assert [path.name for path in written if other.search(path.read_text())] == []


def test_turning_of_a_circle_and_of_a_line():
    turns = 0.4 * torch.arange(DEPTH + 1)
    circle = torch.stack([turns.cos(), turns.sin()], -1)[:, None, None].expand(-1, 2, 9, -1)
    np.testing.assert_allclose(curve(feed(TurningAngle(LAYOUT, DEPTH), circle), "turning", "cls"), 0.4, atol=1e-5)
    line = torch.arange(1.0, DEPTH + 2)[:, None, None, None].expand(-1, 2, 9, 4)
    np.testing.assert_allclose(curve(feed(TurningAngle(LAYOUT, DEPTH), line), "turning", "cls"), 0, atol=1e-3)


def test_contraction_with_a_known_rate():
    """a_l = end + rate^l v: what is missing shrinks by the rate, its variance by the square."""
    rate = 0.6
    generator = torch.Generator().manual_seed(2)
    end, offset = torch.randn(3, 9, 64, generator=generator), torch.randn(3, 9, 64, generator=generator)
    powers = rate ** torch.arange(DEPTH + 1)
    states = end + powers[:, None, None, None] * offset
    found = feed(PhaseEstimation(LAYOUT, DEPTH), states).table()
    rows = found[(found["statistic"] == "estimation_variance") & (found["group"] == "patches")]
    factor = (powers[1:] - powers[-1]).numpy()
    own = offset[:, 3:].double().var(-1, correction=0).mean().item()
    np.testing.assert_allclose(rows["mean"], own * factor**2, rtol=1e-4)
    np.testing.assert_array_equal(rows["layer"], np.arange(1, DEPTH + 1))


def test_estimation_error_is_zero_at_the_end_of_each_phase(states):
    metric = feed(PhaseEstimation(LAYOUT, DEPTH), states)
    found = metric.table((2,))
    for statistic in ("estimation_mean", "estimation_variance"):
        rows = found[(found["statistic"] == statistic) & (found["group"] == "cls")].set_index("layer")["mean"]
        assert rows[2] == pytest.approx(0, abs=1e-5)
        assert rows[5] == pytest.approx(0, abs=1e-5)
        assert abs(rows[4]) > 1e-4
    error = (states[1] - states[2])[:, 0].double()
    rows = found[(found["group"] == "cls") & (found["layer"] == 1)].set_index("statistic")["mean"]
    assert rows["estimation_mean"] == pytest.approx(error.mean().item(), abs=1e-6)
    assert rows["estimation_variance"] == pytest.approx(error.var(-1, correction=0).mean().item(), rel=1e-5)
    with pytest.raises(UsageError, match="do not increase"):
        metric.table((3, 3))


@pytest.mark.parametrize("rank", [1, 3, 6])
def test_update_field_of_a_known_rank(rank):
    """Updates with `rank` equal singular values have that stable and effective rank."""
    generator = torch.Generator().manual_seed(3)
    left = torch.linalg.qr(torch.randn(5, 6, 6, generator=generator))[0][..., :rank]
    right = torch.linalg.qr(torch.randn(5, 16, 16, generator=generator))[0][..., :rank]
    states = torch.zeros(2, 5, 9, 16)
    states[0] = torch.randn(5, 9, 16, generator=generator)
    states[1] = states[0]
    states[1, :, 3:] += left @ right.transpose(1, 2)
    metric = feed(UpdateField(LAYOUT, 1), states)
    assert curve(metric, "stable_rank", "patches")[0] == pytest.approx(rank, rel=1e-4)
    assert curve(metric, "effective_rank", "patches")[0] == pytest.approx(rank, rel=2e-3)


def test_radial_updates_have_no_tangent_part_and_common_ones_are_coherent():
    states = torch.randn(1, 4, 9, 8, generator=torch.Generator().manual_seed(4))
    growing = torch.cat([states, states * 1.5])
    fields = (growing[1] - growing[0])[:, 3:]
    tangent = feed(UpdateField(LAYOUT, 1), growing)
    assert curve(tangent, "effective_rank", "patches")[0] == pytest.approx(
        ranks(torch.linalg.svdvals(fields))[1].mean().item(), rel=1e-3
    )
    pushed = torch.cat([states, states + torch.ones(8)])
    metric = feed(UpdateField(LAYOUT, 1), pushed)
    assert curve(metric, "coherence", "patches")[0] == pytest.approx(1, abs=1e-5)
    assert curve(metric, "cosine_to_mean", "patches")[0] == pytest.approx(1, abs=1e-5)
    opposed = pushed.clone()
    opposed[1, :, 3:6] = states[0, :, 3:6] - torch.ones(8)
    assert curve(feed(UpdateField(LAYOUT, 1), opposed), "coherence", "patches")[0] == pytest.approx(0, abs=1e-5)


def direct(states):
    """Everything again in float64, from the definitions, with loops."""
    a = states.double().numpy()
    found = {}

    def angle(u, v):
        cosine = (u * v).sum(-1) / np.linalg.norm(u, axis=-1) / np.linalg.norm(v, axis=-1)
        return np.arccos(np.clip(cosine, -1, 1))

    d = a[1:] - a[:-1]
    found["norm"] = np.linalg.norm(a, axis=-1)
    found["convergence"] = np.stack([np.cos(angle(state, a[-1])) for state in a])
    found["speed"] = np.stack([angle(a[i], a[i + 1]) for i in range(DEPTH)])
    found["turning"] = np.stack([angle(d[i], d[i + 1]) for i in range(DEPTH - 1)])
    patches = d[:, :, 3:]
    unit = a[:-1] / np.linalg.norm(a[:-1], axis=-1, keepdims=True)
    tangent = (d - (d * unit).sum(-1, keepdims=True) * unit) / np.linalg.norm(a[:-1], axis=-1, keepdims=True)
    for prefix, field in (("", patches), ("tangent_", tangent[:, :, 3:])):
        sigma = np.linalg.svd(field, compute_uv=False)
        share = sigma / sigma.sum(-1, keepdims=True)
        found[f"{prefix}stable_rank"] = (sigma**2).sum(-1) / sigma[..., 0] ** 2
        found[f"{prefix}effective_rank"] = np.exp(-(share * np.log(share)).sum(-1))
    directions = patches / np.linalg.norm(patches, axis=-1, keepdims=True)
    found["coherence"] = np.linalg.norm(directions.mean(2), axis=-1)
    mean = patches.mean(2, keepdims=True)
    found["cosine_to_mean"] = np.cos(angle(patches, mean)).mean(-1)
    return found


def test_all_curves_equal_a_direct_computation(states):
    expected = direct(states)
    for kind in MEASURES[:-1]:
        metric = feed(kind(LAYOUT, DEPTH), states, sizes=(3, 4))
        for statistic in metric.statistics():
            for group in metric.groups():
                values = expected[statistic.name]
                if values.ndim == 3:
                    values = values[..., LAYOUT[group]].mean(-1)
                rows = metric.table()
                rows = rows[(rows["statistic"] == statistic.name) & (rows["group"] == group)]
                np.testing.assert_allclose(rows["mean"], values.mean(1), rtol=1e-3, atol=1e-5, err_msg=statistic.name)
                spread = values.std(1, ddof=1)
                np.testing.assert_allclose(rows["sd"], spread, rtol=2e-2, atol=1e-5)
                half = 2.446912 * spread / math.sqrt(7)  # of Student's t
                np.testing.assert_allclose(rows["high"] - rows["low"], 2 * half, rtol=2e-2, atol=1e-5)
                assert set(rows["n_images"]) == {7}


@pytest.mark.parametrize("kind", MEASURES)
def test_batches_and_processes_do_not_matter(kind, states):
    whole = feed(kind(LAYOUT, DEPTH), states)
    parts = feed(kind(LAYOUT, DEPTH), states, sizes=(1, 6))
    first, second = kind(LAYOUT, DEPTH), kind(LAYOUT, DEPTH)
    feed(first, states[:, :3])
    feed(second, states[:, 3:])
    for name, reduction in first._reductions.items():
        setattr(first, name, reduction(torch.stack([getattr(first, name), getattr(second, name)])))
    for other in (parts, first):
        np.testing.assert_allclose(whole.table()["mean"], other.table()["mean"], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(whole.table()["sd"], other.table()["sd"], rtol=1e-3, atol=1e-5)


def test_singular_values_of_a_steep_spectrum():
    """Eigenvalues of the Gram matrix in float32 alone would miss this by far."""
    generator = torch.Generator().manual_seed(5)
    left = torch.linalg.qr(torch.randn(2, 64, 64, generator=generator).double())[0]
    right = torch.linalg.qr(torch.randn(2, 96, 96, generator=generator).double())[0][:, :64]
    sigma = torch.logspace(0, -5, 64, dtype=torch.float64).expand(2, -1)
    fields = (left * sigma[:, None]) @ right
    stable, effective = ranks(singular_values(fields.float()).double())
    share = sigma / sigma.sum(-1, keepdim=True)
    torch.testing.assert_close(effective, torch.special.entr(share).sum(-1).exp(), rtol=1e-3, atol=0)
    torch.testing.assert_close(stable, sigma.square().sum(-1), rtol=1e-4, atol=0)


@needs_offline
def test_ranks_of_a_real_network_are_within_a_thousandth(imgfocus):
    batch = next(load_images("samples", imgfocus, n=3).batches(3, workers=0))
    trajectory = capture(imgfocus, batch)
    for layer in range(12):
        step = (trajectory.states[layer + 1] - trajectory.states[layer])[:, 1:]
        stable, effective = ranks(singular_values(step).double())
        exact_stable, exact_effective = ranks(torch.linalg.svdvals(step.double()))
        torch.testing.assert_close(stable, exact_stable, rtol=1e-3, atol=0)
        torch.testing.assert_close(effective, exact_effective, rtol=1e-3, atol=0)


def test_singular_values_a_little_above_the_noise_are_found_anew():
    """One value of 1 and many of 1e-3: a float32 Gram matrix leaves those wrong by a tenth."""
    generator = torch.Generator().manual_seed(6)
    left = torch.linalg.qr(torch.randn(1, 250, 250, generator=generator).double())[0]
    right = torch.linalg.qr(torch.randn(1, 300, 300, generator=generator).double())[0][:, :250]
    sigma = torch.full((1, 250), 1e-3, dtype=torch.float64)
    sigma[:, 0] = 1
    fields = ((left * sigma[:, None]) @ right).float()
    torch.testing.assert_close(
        singular_values(fields), torch.linalg.svdvals(fields.double()).flip(-1), rtol=1e-4, atol=0
    )


def test_ranks_do_not_depend_on_size():
    for size in (1e-6, 1.0, 1e6):
        stable, effective = ranks(size * torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]]))
        torch.testing.assert_close(stable, torch.tensor([2.0, 1.0]))
        torch.testing.assert_close(effective, torch.tensor([2.0, 1.0]))
    assert [found.item() for found in ranks(torch.zeros(3))] == [0, 0]


def test_moments_of_one_two_and_no_images():
    """Entries that are NaN in an image are left out: here three, two, one and no values."""
    moments = RunningMoments((4,))
    moments.update(torch.tensor([[1.0, 1.0, torch.nan, torch.nan]]))
    moments.update(torch.tensor([[3.0, torch.nan, torch.nan, torch.nan], [5.0, 3.0, 7.0, torch.nan]]))
    found = moments.arrays()
    assert found["n_images"].tolist() == [3, 2, 1, 0]
    np.testing.assert_allclose(found["mean"], [3, 2, 7, np.nan])
    np.testing.assert_allclose(found["sd"], [2, 2**0.5, np.nan, np.nan], atol=1e-7)
    np.testing.assert_allclose(found["high"][:2] - [3, 2], np.array([4.302653 * 2 / 3**0.5, 12.706205]))


@pytest.mark.parametrize("make", [DynamicModes, AngularBasins])
def test_a_process_without_images_adds_no_rows(make, states):
    """What it gives in place of them goes with the rows of the others, and changes nothing."""
    metric = make(LAYOUT, DEPTH, 8)
    metric.update(Trajectory(states, LAYOUT, torch.arange(7), torch.arange(7) % 2))
    for name, nothing in metric.no_rows.items():
        for rows in getattr(metric, name):
            joined = torch.cat([nothing, rows])
            assert joined.dtype == rows.dtype
            assert torch.equal(joined, rows)


def test_estimation_rows_are_those_of_the_table(states):
    metric = feed(PhaseEstimation(LAYOUT, DEPTH), states)
    found = metric.table((2,))
    assert list(found.columns) == list(COLUMNS)
    assert list(found.index) == list(range(len(found)))


def test_nothing_moves():
    still = torch.randn(1, 2, 9, 8).expand(3, -1, -1, -1)
    metric = feed(UpdateField(LAYOUT, 2), still)
    assert np.isnan(metric.table()["mean"]).all()
    assert set(metric.table()["n_images"]) == {0}
    np.testing.assert_allclose(curve(feed(AngularSpeed(LAYOUT, 2), still), "speed", "cls"), 0)


def test_images_and_tokens_that_do_not_move_are_left_out():
    states = torch.randn(3, 2, 9, 8)
    states[1:, 0, LAYOUT["patches"]] = states[0, 0, LAYOUT["patches"]]  # patches of the first image stand still
    states[1:, 1, LAYOUT["registers"]][:, 0] = states[0, 1, LAYOUT["registers"]][0]  # and one register of the second
    field = feed(UpdateField(LAYOUT, 2), states).table()
    alone = feed(UpdateField(LAYOUT, 2), states[:, 1:]).table()
    assert set(field["n_images"]) == {1}
    np.testing.assert_allclose(field["mean"], alone["mean"])
    turning = feed(TurningAngle(LAYOUT, 2), states)
    rows = turning.table().set_index("group")
    assert rows["n_images"].to_dict() == {"cls": 2, "registers": 2, "patches": 1}
    first, second = (
        states[1, :, LAYOUT["registers"]] - states[0, :, LAYOUT["registers"]],
        (states[2, :, LAYOUT["registers"]] - states[1, :, LAYOUT["registers"]]),
    )
    angles = functional.cosine_similarity(first, second, dim=-1).acos()
    expected = (angles[0].mean() + angles[1, 1:].mean()) / 2
    assert rows.loc["registers", "mean"] == pytest.approx(float(expected), abs=1e-5)


def test_alignment_by_hand():
    """Updates 0.9 (from the embedding), 0.1, 0.5, 0.2, 0.2: the one across boundary 2 is the fastest of four."""
    speed = np.array([0.9, 0.1, 0.5, 0.2, 0.2])
    test = phase_alignment(speed, [2])
    assert (test.statistic, test.at_boundaries) == ("speed", 0.5)
    assert test.inside == pytest.approx((0.1 + 0.2 + 0.2) / 3)
    assert test.p_value == pytest.approx(1 / 4)
    assert (test.placements, test.exact) == (4, True)
    assert phase_alignment(speed, [3]).p_value == pytest.approx(3 / 4)
    assert phase_alignment(speed, [2, 3]).at_boundaries == pytest.approx(0.35)
    assert phase_alignment(speed, [2, 3]).p_value == pytest.approx(2 / 6)  # {2, 3} and {2, 4}
    assert phase_alignment(np.arange(5.0), []) is None
    assert phase_alignment(np.arange(3.0), [1, 2]) is None


def test_alignment_by_sampling_agrees_with_its_level():
    rng = np.random.default_rng(0)
    values = [phase_alignment(rng.random(40), (5, 11, 19, 27, 33), permutations=500).p_value for _ in range(100)]
    assert 0.35 < np.mean(values) < 0.65
    assert not phase_alignment(rng.random(40), (5, 11, 19, 27, 33)).exact


def test_one_pass_with_phases_found_in_it(tiny, noise_folder):
    images = load_images(noise_folder, tiny)
    found = token_dynamics(tiny, images, k=2, stream=Stream(workers=0))
    assert found.phases.k == 2
    assert found.groups("speed") == ["cls", "registers", "patches"]
    assert len(found.curve("convergence", "cls")) == 5
    assert found.curve("convergence", "registers")[-1] == pytest.approx(1)
    for group, chosen in (("cls", "cls"), (None, "patches")):
        rows = found.table[(found.table["statistic"] == "norm") & (found.table["group"] == chosen)]
        assert found.curve("norm", group).tolist() == rows.sort_values("layer")["mean"].tolist()
    given = token_dynamics(tiny, images, segment(np.eye(4), k=3), measures=("speed",), stream=Stream(workers=0))
    assert given.phases.k == 3
    np.testing.assert_allclose(given.curve("speed", "cls"), found.curve("speed", "cls"), rtol=1e-5)
    assert given.groups("norm") == []


def test_tokens_of_zeros_are_left_out_where_directions_count(states):
    """Their group's mean is that of the others."""
    zeroed = states.clone()
    zeroed[2, :, 4] = 0  # one of six patches
    for kind, name in ((DirectionalConvergence, "convergence"), (AngularSpeed, "speed")):
        with_all = feed(kind(LAYOUT, DEPTH), states)
        found, whole = (curve(metric, name, "patches") for metric in (feed(kind(LAYOUT, DEPTH), zeroed), with_all))
        others = TokenLayout.with_prefix((1, 5), {"cls": 1, "registers": 2})
        kept = states[:, :, [0, 1, 2, 3, 5, 6, 7, 8]]
        expected = curve(feed(kind(others, DEPTH), kept, layout=others), name, "patches")
        assert found[2] == pytest.approx(expected[2], abs=1e-6)
        assert found[0] == pytest.approx(whole[0], abs=1e-6)
    zeroed[2, :, 0] = 0
    assert np.isnan(curve(feed(AngularSpeed(LAYOUT, DEPTH), zeroed), "speed", "cls")[1:3]).all()


def test_no_alignment_where_a_layer_has_no_speed():
    assert phase_alignment(np.array([0.1, np.nan, 0.3, 0.9]), [2]) is None
    assert phase_alignment(np.array([np.nan, 0.1, 0.3, 0.9]), [2]).at_boundaries == 0.3  # none in the embedding


def test_measures_that_are_left_out(tiny, noise_folder):
    images = load_images(noise_folder, tiny, n=8)
    found = token_dynamics(tiny, images, leave_out=["modes", "speed"], stream=Stream(workers=0))
    assert found.modes is None
    assert "speed" not in found.statistics
    assert {"norm", "convergence"} <= set(found.statistics)
    assert "modes" not in found.left_out  # that is for what the images do not allow
    with pytest.raises(UsageError, match="unknown measure 'wobble'"):
        token_dynamics(tiny, images, leave_out=["wobble"])
