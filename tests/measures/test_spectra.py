"""Lyapunov exponents, singular values and coupling of blocks whose answer is known, and against direct Jacobians."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import brdyn
from brdyn.choices import chosen_measures
from brdyn.data import Batch
from brdyn.errors import UsageError
from brdyn.measures.contract import Asked
from brdyn.measures.coupling import placement_test, same_phase
from brdyn.measures.jacobian import directions, leading_singular, orthonormal
from brdyn.measures.spectra import JacobianSpectra
from brdyn.plots import draw, plot_coupling
from brdyn.trajectory import Stream, Trajectory, capture
from tests.conftest import tiny_vit

STREAM = Stream(workers=0)
ASKED = {"boundaries": None, "seed": 0, "ridge": 1e-3, "rank": None}


class Map(nn.Module):
    """A linear map of every token, `(D, D)`."""

    def __init__(self, matrix):
        super().__init__()
        self.register_buffer("matrix", matrix)

    def forward(self, state):
        return state @ self.matrix.T


def linear_network(matrices, kind=Map):
    """The tiny ViT with these maps for blocks; one token of cls, four patches."""
    model = tiny_vit(depth=len(matrices)).double()
    model.blocks = nn.ModuleList(kind(matrix) for matrix in matrices)
    return model


def measured(model, start, *, tangents=3, steps=0, seed=0, sizes=None):
    """The spectra of states that start here, `(B, N, D)`."""
    states = [start]
    for block in model.blocks:
        states.append(block(states[-1]))
    metric, place = JacobianSpectra(model, tangents, steps, seed), 0
    for size in sizes or (len(start),):
        part = slice(place, place + size)
        metric.update(Trajectory([state[part] for state in states], model.tokens, torch.arange(len(start))[part]))
        place += size
    return metric


def starts(images=3, seed=0):
    return torch.randn(images, 19, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


PAIRS = [(0, 1), (0, 2), (1, 2)]  # of three layers


def rotation(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(16, 16, dtype=torch.float64, generator=generator))[0]


@pytest.mark.parametrize(
    ("matrix", "growth"),
    [(torch.eye(16).double(), 0.0), (rotation(), 0.0), (1.5 * rotation(1), np.log(1.5))],
    ids=["identity", "rotation", "scaled rotation"],
)
def test_what_keeps_angles_has_the_growth_of_its_scale(matrix, growth):
    """Every exponent, singular value and the norm alike; the same map twice couples with itself alone."""
    found = measured(linear_network([matrix] * 4), starts(), steps=1).details([2])
    np.testing.assert_allclose(found.exponents, growth, atol=1e-12)
    np.testing.assert_allclose(found.by_block("growth"), growth, atol=1e-12)
    np.testing.assert_allclose(found.by_block("growth of the norm"), growth, atol=1e-12)
    for name in ("restricted singular value", "singular value"):
        np.testing.assert_allclose(found.by_block(name), np.exp(growth), atol=1e-10)
    phase = found.totals.query("quantity == 'growth over the phase' and phase == 1")["mean"]
    np.testing.assert_allclose(phase, 2 * growth, atol=1e-12)


def test_a_diagonal_network_has_the_logarithms_of_its_diagonal():
    """All tokens lie along the first axis, which is their radial direction: the others are left, for each of 19."""
    diagonals = [torch.linspace(0.5, 2, 16).double() + 0.1 * block for block in range(3)]
    start = torch.zeros(2, 19, 16, dtype=torch.float64)
    start[..., 0] = 2.0
    network = linear_network([torch.diag(diagonal) for diagonal in diagonals])
    every = measured(network, start, tangents=19 * 15).details([])
    total = 19 * sum(diagonal[1:].log().sum() for diagonal in diagonals) / 3  # whatever the vectors: log |det| / L
    assert every.exponents.sum() == pytest.approx(float(total), abs=1e-8)
    largest = [float(diagonal[1:].max()) for diagonal in diagonals]
    found = measured(network, start, tangents=2, steps=40).details([])
    np.testing.assert_allclose(found.by_block("singular value")[0], largest, rtol=1e-6)
    assert (found.by_block("restricted singular value")[0] < largest).all()


def projected(block, before, after):
    """The Jacobian of a block without radial directions, `(ND, ND)`, entry by entry in reverse mode."""
    size = before.numel()
    matrix = torch.func.jacrev(block)(before).reshape(size, size)
    off = [
        torch.eye(size).double() - torch.block_diag(*[torch.outer(one, one) for one in directions(state)[0]])
        for state in (before, after)
    ]
    return off[1] @ matrix @ off[0]


@pytest.fixture(scope="module")
def tiny_run():
    """A tiny ViT in float64, three images' states, and the Jacobians `(L, B, ND, ND)`."""
    model = tiny_vit(depth=3).double()
    pictures = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1)).double()
    trajectory = capture(model, Batch(pictures, torch.arange(3), None))
    states = trajectory.states
    jacobians = [
        [projected(block, states[layer][image : image + 1], states[layer + 1][image : image + 1]) for image in range(3)]
        for layer, block in enumerate(model.blocks)
    ]
    return model, trajectory, jacobians


def test_a_tiny_vit_against_direct_jacobians_in_float64(tiny_run):
    """Exponents by NumPy's QR from the same vectors; singular values, vectors and coupling by NumPy's SVD."""
    model, trajectory, jacobians = tiny_run
    metric = JacobianSpectra(model, 4, 12)
    metric.update(trajectory)
    found = metric.details([1])
    carried = metric._start(trajectory.states[0], trajectory.positions).flatten(2).permute(1, 2, 0).numpy()
    growth, values, bases = np.zeros((3, 3, 4)), np.zeros((3, 3, 4)), []
    for image, columns in enumerate(carried):
        columns, own = np.linalg.qr(columns)[0], []
        for layer in range(3):
            jacobian = jacobians[layer][image].numpy()
            columns, factor = np.linalg.qr(jacobian @ columns)
            growth[image, layer] = np.log(np.abs(np.diag(factor)))
            left, sizes, right = np.linalg.svd(jacobian)
            values[image, layer] = sizes[:4]
            own.append((right[:4].T, left[:, :4]))
        bases.append(own)
    np.testing.assert_allclose(found.by_block("growth"), growth.mean(0).T, atol=1e-5)
    np.testing.assert_allclose(found.exponents, growth.mean((0, 1)), atol=1e-5)
    np.testing.assert_allclose(found.by_block("singular value"), values.mean(0).T, rtol=1e-5)
    for place, side in enumerate(("entering", "leaving")):
        pair = [(own[0][place].T @ own[2][place]) ** 2 for own in bases]
        assert found.coupling(side)[0, 2] == pytest.approx(np.sum(pair) / 3 / 4, abs=1e-5)
        every = found.totals.query(f"quantity == 'coupling of {side} directions, all pairs of layers'")
        pairs = [
            np.mean([np.sum((own[one][place].T @ own[two][place]) ** 2) / 4 for one, two in PAIRS]) for own in bases
        ]
        assert every["mean"].item() == pytest.approx(np.mean(pairs), abs=1e-5)
        assert every["sd"].item() == pytest.approx(np.std(pairs, ddof=1), rel=1e-3)
    sd = growth.mean(1)[:, 0].std(ddof=1)
    row = found.totals.iloc[0]
    assert row["sd"] == pytest.approx(sd, rel=1e-4)
    assert row["high"] - row["mean"] == pytest.approx(4.302653 * sd / np.sqrt(3), rel=1e-4)


class OfMatrix:
    """Products with one matrix, for every image, in the place of a block's Jacobian."""

    def __init__(self, matrix):
        self.matrix = matrix

    def ahead(self, vectors):
        return (vectors.flatten(2) @ self.matrix.T).reshape(vectors.shape)

    def back(self, vectors):
        return (vectors.flatten(2) @ self.matrix).reshape(vectors.shape)


@pytest.mark.parametrize("steps", [1, 2])
def test_krylov_steps_against_the_best_in_the_span_by_numpy(steps):
    """So many steps and no fewer; `settled` is the mean squared cosine to what one step fewer gives."""
    rng = np.random.default_rng(0)
    matrix, start = rng.normal(size=(24, 24)), np.linalg.qr(rng.normal(size=(24, 2)))[0]

    def best(number):
        parts = [start]
        for _ in range(number):
            parts.append(matrix.T @ (matrix @ parts[-1]))
        basis = np.linalg.qr(np.hstack(parts))[0]
        _, values, right = np.linalg.svd(matrix @ basis)
        return values[:2], basis @ right[:2].T

    vectors = torch.from_numpy(start.T.copy()).reshape(2, 1, 3, 8)
    jacobian = OfMatrix(torch.from_numpy(matrix))
    found = leading_singular(jacobian, vectors, jacobian.ahead(vectors), steps)
    (values, right), (_, before) = best(steps), best(steps - 1)
    np.testing.assert_allclose(found.values[0], values, rtol=1e-10)
    np.testing.assert_allclose(np.abs(found.entering[0] @ right), np.eye(2), atol=1e-8)
    assert found.settled.item() == pytest.approx(((before.T @ right) ** 2).sum() / 2, abs=1e-8)


def test_batches_change_nothing(tiny_run):
    """An image has its own vectors wherever it comes."""
    model, trajectory, _ = tiny_run
    start = trajectory.states[0]
    whole, parts = (measured(model, start, tangents=2, steps=1, sizes=sizes).details([1]) for sizes in ((3,), (1, 2)))
    for name in ("totals", "blocks", "pairs"):
        np.testing.assert_allclose(getattr(whole, name)["mean"], getattr(parts, name)["mean"], atol=1e-9)
    other = measured(model, start, tangents=2, seed=1).details([1])
    assert abs(whole.exponents - other.exponents).max() > 1e-4


def test_dependent_vectors_still_get_a_basis():
    """A direction that a block loses counts as shrunk to nothing, and the others go on."""
    lost = torch.eye(16).double()
    lost[8:] = 0
    found = measured(linear_network([lost, lost]), starts(), tangents=19 * 15)
    assert torch.isfinite(found.total_growth).all()
    vectors = torch.zeros(2, 1, 3, 1)
    vectors[:, 0, 0] = 1  # twice the same
    basis, factor = orthonormal(vectors)
    np.testing.assert_allclose((basis.flatten(2)[:, 0] @ basis.flatten(2)[:, 0].T).numpy(), np.eye(2), atol=1e-6)
    assert abs(float(factor[0, 1, 1])) < 1e-6


def test_every_line_names_its_side(tiny_run):
    """Also of results of versions that did not tell the coupling of all pairs."""
    model, trajectory, _ = tiny_run
    metric = JacobianSpectra(model, 2, 1)
    metric.update(trajectory)
    found = metric.details([1])
    before = replace(found, totals=found.totals[~found.totals["quantity"].str.endswith("all pairs of layers")])
    for one, told in ((found, 2), (before, 1)):
        lines = [line for line in one.describe() if line.startswith("coupling of ")]
        assert [line.split()[2] for line in lines] == ["entering", "leaving"]
        assert {line.count("[") for line in lines} == {told}
        assert one.describe()[0].count(";") == 1


def test_the_exponent_of_index_1_need_not_be_the_largest(tiny_run):
    model, trajectory, _ = tiny_run
    metric = JacobianSpectra(model, 3)
    metric.update(trajectory)
    found = metric.details([1])
    rows = found.totals["quantity"] == "exponent"
    found.totals.loc[rows, "mean"] = [0.5, 0.75, -0.25]
    assert "exponents -0.25 to 0.75 nats per block, that of index 1 0.5 (" in found.describe()[0]


def test_images_that_are_alike_are_followed_along_vectors_of_their_own():
    metric = measured(linear_network([rotation()]), starts())
    same = starts()[:1].expand(2, -1, -1)
    drawn = metric._start(same, torch.tensor([0, 1]))
    assert torch.equal(metric._start(same, torch.tensor([1, 1]))[:, 0], drawn[:, 1])
    assert abs(drawn[:, 0] - drawn[:, 1]).max() > 0.1


def test_what_is_lost_to_nothing_has_the_least_growth_and_no_infinity():
    found = measured(linear_network([torch.zeros(16, 16).double()]), starts()).details([])
    np.testing.assert_allclose(found.exponents, np.log(1e-30))


def test_coupling_within_phases_is_compared_at_the_same_distance():
    """A coupling that falls with distance alone says nothing; squares along the diagonal do."""
    first, second = np.triu_indices(8, 1)
    drift = 1.0 / (second - first)
    weights = same_phase(8, np.array([[4]]))[0]
    assert weights @ drift == pytest.approx(0, abs=1e-12)
    same = (first < 4) == (second < 4)
    assert weights @ (drift + 0.3 * same) == pytest.approx(0.3)
    test = placement_test(drift + 0.3 * same, 8, [4], 0)
    assert (test.p_value, test.placements) == (pytest.approx(1 / 7), 7)
    assert placement_test(drift, 8, [], 0) is None


def test_what_cannot_be_had_is_said_in_a_line():
    model = tiny_vit()
    with pytest.raises(UsageError, match="`tangents=286` is more than the 285 directions that 19 tokens of width 16"):
        JacobianSpectra(model, 286)
    with pytest.raises(UsageError, match="use `krylov_steps=34` at most"):
        JacobianSpectra(model, 8, 35)
    with pytest.raises(UsageError, match="`tangents=0` is not a number of vectors from 1"):
        JacobianSpectra(model, 0)
    assert JacobianSpectra(model, 8, 34).steps == 34


class Opaque(nn.Module):
    """A block that leaves torch on its way."""

    def forward(self, state):
        return torch.from_numpy(state.numpy() * 1.0)


def test_blocks_that_cannot_be_differentiated_are_said_in_a_line():
    model = tiny_vit()
    model.blocks[2] = Opaque()
    with pytest.raises(UsageError, match=r"and block 3 of 'tiny_vit' cannot .*; leave spectra out") as caught:
        JacobianSpectra.make(model, Asked(**ASKED))
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """Of the tiny ViT beside two twins, on five images."""
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for index in range(5):
        Image.fromarray(rng.integers(0, 255, (34, 40, 3), dtype=np.uint8)).save(folder / f"{index}.png")
    images, twins = brdyn.load_images(folder, tiny_vit()), [tiny_vit(seed=1), tiny_vit(seed=2)]
    options = {"measures": ["spectra", "norm"], "tangents": 2, "krylov_steps": 1, "k": 2}
    return brdyn.with_null(brdyn.token_dynamics, tiny_vit(), images, twins=twins, stream=STREAM, **options)


def test_it_stands_beside_twins_and_comes_back_from_its_folder(result, tmp_path):
    value, untrained = result.beside()["all: leading Lyapunov exponent (of index 1, nats per block)"]
    assert value == pytest.approx(result.spectra.exponents[0])
    assert len(set(untrained)) == 2
    assert value not in untrained
    result.save(tmp_path / "out")
    again = brdyn.read(tmp_path / "out")
    assert again == result
    assert again.summary() == result.summary()
    assert "spectra: finite-time Lyapunov exponents" in again.summary()
    assert "coupling of entering directions" in again.summary()


def test_it_is_taken_only_where_it_is_named(result):
    assert "spectra" not in chosen_measures(None)
    assert chosen_measures(["spectra"]) == ("spectra",)
    assert "spectra" in chosen_measures(["all", "spectra"])
    assert list(result.details) == ["spectra"]


def test_the_pictures_show_the_numbers(result):
    pictures = draw(result)
    assert {"exponents", "coupling"} < set(pictures)
    assert not {"leading_growth", "norm_growth"} & set(pictures)
    by_index, by_block = pictures["exponents"].axes
    np.testing.assert_allclose(by_index.lines[0].get_ydata(), result.spectra.exponents)
    np.testing.assert_allclose(by_block.lines[1].get_ydata(), result.spectra.by_block("growth")[0])
    entering = pictures["coupling"].axes[1].images[0].get_array()
    expected = result.spectra.coupling("entering")
    assert entering[0, 1] == pytest.approx(expected[0, 1])
    assert np.ma.getmaskarray(entering).diagonal().all() or np.isnan(np.asarray(entering).diagonal()).all()
    assert plot_coupling(result.spectra, result.phases, title="x").axes[1].get_xlabel() == "block"
