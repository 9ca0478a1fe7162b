"""Maps whose limits, cycles and spectral radii are known, applied again and again."""

import math

import pandas as pd
import pytest
import torch
from scipy import stats

from brdyn.measures.fixed_points import PERIODS, FixedPointMetric, Repeated, spectral_radius
from brdyn.measures.found_fixed_points import CONTRACTS, EXPANDS, UNCERTAIN, FixedPoints
from brdyn.models import TokenLayout
from brdyn.trajectory import Trajectory

LAYOUT = TokenLayout.with_prefix((1, 2), {"cls": 1})
FACTOR, LENGTH = 8, 4
TIMES = FACTOR * LENGTH


class Of(FixedPointMetric):
    """Follows any map of states."""

    def __init__(self, apply, factor=FACTOR, length=LENGTH, read=lambda state, number: {}, readings=None):
        super().__init__(LAYOUT, factor * length, readings or {})
        self.one, self.read = apply, read

    def begin(self, trajectory):
        return Repeated(trajectory.states[0], lambda state, number: self.one(state), self.read)


def states(images=5):
    return torch.randn(images, 3, 2, generator=torch.Generator().manual_seed(0))


def found(apply, start=None, **options):
    metric = Of(apply, **options)
    start = states() if start is None else start
    metric.update(Trajectory((start,), LAYOUT, torch.arange(len(start))))
    return FixedPoints.of(options.get("factor", FACTOR), {"it": metric})


def turned(angle, scale=1.0):
    """A rotation of every token, by a row vector's convention."""
    cos, sin = scale * math.cos(angle), scale * math.sin(angle)
    matrix = torch.tensor([[cos, sin], [-sin, cos]])
    return lambda state: state @ matrix


def means(result, statistic, group="all"):
    return result.curve("it", statistic, group)["mean"].tolist()


def test_a_contraction_comes_to_rest_at_its_rate():
    """a -> c + 0.5 (a - c): what is left of the way halves, and so does each step."""
    centre = torch.tensor([3.0, -4.0])
    result = found(lambda state: centre + 0.5 * (state - centre))
    assert result.shares("it") == {"come to a limit": 1.0}
    ends = stats.binomtest(5, 5).proportion_ci(method="wilson")
    row = result.curve("it", "limit").iloc[0]
    assert (row["low"], row["high"]) == pytest.approx((ends.low, ends.high))  # not 1 for certain, of five images
    assert result.verdict("it") == CONTRACTS
    assert means(result, "radius") == pytest.approx([0.5])
    start, rest = states(), 5 * math.sqrt(3)
    for group, part, size in (("all", slice(0, 3), rest), ("cls", slice(0, 1), 5.0)):
        way = torch.linalg.vector_norm((start - centre)[:, part].flatten(1), dim=1)
        expected = [float((way * 0.5**number / size).mean()) for number in range(1, 8)]
        assert means(result, "distance", group)[:7] == pytest.approx(expected, rel=1e-3)
    before = torch.linalg.vector_norm((centre + 0.5 * (start - centre)).flatten(1), dim=1)
    way = torch.linalg.vector_norm((start - centre).flatten(1), dim=1)
    assert means(result, "step")[1] == pytest.approx(float((way / 4 / before).mean()), rel=1e-4)


def test_what_comes_back_to_where_it_began_is_at_rest_there():
    """A state that went far is measured by how far it was, not by how far it is."""
    start = states()

    def there_and_back(state, number):
        return start + (5.0 if number < TIMES // 2 else 1e-3 * (-1) ** number)

    class Moving(Of):
        def begin(self, trajectory):
            return Repeated(trajectory.states[0], there_and_back, self.read)

    metric = Moving(None)
    metric.update(Trajectory((start,), LAYOUT, torch.arange(len(start))))
    rows = metric.table().set_index("statistic")["mean"]
    assert rows["limit"] == 1
    assert rows["cycle_2"] == 0


def test_only_a_whole_interval_says_that_a_block_contracts():
    rows = {"phase": ["it"], "statistic": ["radius"], "unit": [""], "group": ["all"], "application": [1]}

    def verdict(low, high):
        row = {"mean": (low + high) / 2, "low": low, "high": high, "sd": 0.1, "n_images": 8}
        return FixedPoints(FACTOR, {"it": LENGTH}, pd.DataFrame({**rows, **row})).verdict("it")

    assert [verdict(0.9, 0.99), verdict(0.9, 1.05), verdict(0.95, 1.1), verdict(1.01, 1.1)] == [
        CONTRACTS, UNCERTAIN, UNCERTAIN, EXPANDS,
    ]  # fmt: skip


def test_an_interval_that_holds_1_is_no_evidence_of_neither_and_one_image_has_none():
    row = {"phase": "it", "statistic": "radius", "unit": "", "group": "all", "application": 1, "sd": 0.1, "n_images": 8}
    said = [
        FixedPoints(FACTOR, {"it": LENGTH}, pd.DataFrame([{**row, "mean": 0.9, "low": low, "high": high}])).remarks()
        for low, high in ((0.55, 1.25), (math.nan, math.nan))
    ]
    opening = f"it, applied {FACTOR * LENGTH} times, is not shown to contract or to expand where it ends: spectral "
    assert said == [[f"{opening}radius 0.900 [0.550, 1.250]"], [f"{opening}radius 0.900"]]


@pytest.mark.parametrize("period", [2, 3, 4])
def test_a_rotation_comes_to_a_cycle(period):
    result = found(turned(2 * math.pi / period))
    assert result.shares("it") == {f"come to a cycle of {period}": 1.0}
    assert means(result, "distance") == pytest.approx([0.0] * TIMES, abs=1e-5)
    assert means(result, "step") == pytest.approx([2 * math.sin(math.pi / period)] * TIMES, rel=1e-4)
    assert means(result, "radius") == pytest.approx([1.0], abs=1e-4)


def test_a_slow_rotation_comes_to_neither():
    result = found(turned(0.1))
    assert result.shares("it") == {"come to neither a limit nor a cycle": 1.0}
    assert means(result, "distance")[-1] == 0
    assert means(result, "distance")[0] == pytest.approx(2 * math.sin(0.1 * (TIMES - 1) / 2), rel=1e-4)


def test_the_identity_is_at_rest_everywhere():
    result = found(lambda state: state.clone())
    assert result.shares("it") == {"come to a limit": 1.0}
    assert means(result, "step") == [0.0] * TIMES
    assert means(result, "radius") == pytest.approx([1.0])
    assert result.verdict("it") == UNCERTAIN


def test_an_expansion_comes_to_neither_and_says_so():
    result = found(lambda state: 1.2 * state)
    assert result.shares("it") == {"come to neither a limit nor a cycle": 1.0}
    assert result.verdict("it") == EXPANDS
    assert means(result, "step") == pytest.approx([0.2] * TIMES, rel=1e-3)
    assert means(result, "distance")[0] == pytest.approx(1 - 1.2 ** (1 - TIMES), rel=1e-4)


def test_what_drifts_on_is_at_no_limit_however_long():
    """A steady step is a smaller and smaller part of the way gone."""
    assert found(lambda state: state + 1, factor=100).shares("it") == {"come to neither a limit nor a cycle": 1.0}
    assert found(lambda state: state + 1e-4).shares("it") == {"come to neither a limit nor a cycle": 1.0}


def test_what_runs_away_is_counted_and_does_not_spoil_the_rest():
    start = states(4)
    start[1] = 1e3
    result = found(lambda state: torch.where(state.abs().amax((1, 2), keepdim=True) > 10, state**4, state / 2), start)
    assert result.shares("it") == {"come to a limit": 0.75, "run beyond all numbers": 0.25}
    assert means(result, "radius") == pytest.approx([0.5])
    steps = result.curve("it", "step")["n_images"]
    assert (steps.iloc[0], steps.iloc[-1]) == (4, 3)


def test_ends_are_told_image_by_image():
    """One rests, one turns by thirds, one by less."""

    def apply(state):
        first, second = turned(2 * math.pi / 3), turned(0.1)
        return torch.cat((0.5 * state[:1], first(state[1:2]), second(state[2:])))

    metric = Of(apply)
    start = states(3)
    values = metric.per_image(Trajectory((start,), LAYOUT, torch.arange(3)))
    ends = {name: values[name, "all"][0].tolist() for name in ("limit", "cycle_2", "cycle_3", "neither")}
    assert ends == {"limit": [1, 0, 0], "cycle_2": [0, 0, 0], "cycle_3": [0, 1, 0], "neither": [0, 0, 1]}
    assert values["radius", "all"][0].tolist() == pytest.approx([0.5, 1, 1], abs=1e-4)
    assert values["distance", "all"][:, 1].tolist() == pytest.approx([0] * TIMES, abs=1e-5)


def test_a_map_that_is_applied_twice_has_no_longer_cycle_looked_for():
    result = found(turned(math.pi), factor=2, length=1)
    assert result.shares("it") == {
        "come to neither a limit nor a cycle": 1.0
    }  # two states say nothing of a cycle of two
    assert found(turned(math.pi), factor=4, length=1).shares("it") == {"come to a cycle of 2": 1.0}
    assert PERIODS == 4


def test_what_is_read_is_kept_where_it_is_read():
    def read(state, number):
        return {} if number % LENGTH else {"size": state.abs().mean((1, 2)).double()}

    result = found(lambda state: state / 2, read=read, readings={"size": "mean"})
    rows = result.curve("it", "size")
    assert rows.index.tolist() == list(range(LENGTH, TIMES + 1, LENGTH))
    assert rows["mean"].iloc[0] == pytest.approx(float(states().abs().mean()) / 2**LENGTH)
    assert result.readings == ("size",)


def test_what_is_found_does_not_depend_on_batches():
    matrix = torch.tensor([[0.9, 0.7], [-0.2, 0.4]])
    start = states(6)
    whole, parts = Of(lambda state: (state @ matrix).tanh()), Of(lambda state: (state @ matrix).tanh())
    whole.update(Trajectory((start,), LAYOUT, torch.arange(6)))
    for places in torch.arange(6).split(4):
        parts.update(Trajectory((start[places],), LAYOUT, places))
    first, second = whole.table(), parts.table()
    assert first["mean"].tolist() == pytest.approx(second["mean"].tolist(), rel=1e-4, abs=1e-6)


def test_the_spectral_radius_of_a_block_is_that_of_its_jacobian(tiny):
    """Against all eigenvalues of the Jacobian, image by image, in float64."""
    block = tiny.blocks[1].double()
    start = torch.randn(2, tiny.tokens.count, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def flat(image):
        return block(image.view(1, tiny.tokens.count, 16)).flatten()

    for image in start.split(1):
        whole = torch.autograd.functional.jacobian(flat, image.flatten())
        expected = float(torch.linalg.eigvals(whole).abs().max())
        got = spectral_radius(block, image, torch.ones_like(image) + image, products=60)
        assert float(got) == pytest.approx(expected, rel=0.01)


def test_it_comes_back_and_is_said():
    centre = torch.tensor([3.0, -4.0])
    result = found(lambda state: centre + 0.5 * (state - centre))
    again = FixedPoints.from_dict(result.to_dict())
    assert again == result
    (said,) = result.remarks()
    assert said.startswith("it, applied 32 times, contracts where it ends: spectral radius 0.500 [0.500, 0.500]")
    assert said.endswith("100% of the images come to a limit")
    (row,) = result.overview()
    assert row["step at 4"] == pytest.approx(means(result, "step")[3])
    assert row["step at last"] == pytest.approx(means(result, "step")[-1])


def test_a_rotation_turns_every_token_by_its_angle_and_growth_by_none():
    for group in ("cls", "patches", "all"):
        assert means(found(turned(0.3, 1.1)), "turn", group) == pytest.approx([0.3] * TIMES, rel=1e-3)
    assert means(found(lambda state: 1.2 * state), "turn") == pytest.approx([0.0] * TIMES, abs=1e-3)
