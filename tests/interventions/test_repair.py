"""Perturbation repair: equal to perturbing a full forward pass, and right on maps with a known answer."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from brdyn.checked_json import parse
from brdyn.data import Batch, load_images
from brdyn.errors import BrdynError, UsageError
from brdyn.interventions import Repair, perturb, perturbation_repair
from brdyn.interventions.repair import PerturbationSweep, angles_to, half_repair
from brdyn.measures import layer_similarity
from brdyn.phases import segment
from brdyn.runtime import fitting_images
from brdyn.store import to_json
from brdyn.trajectory import Stream, capture
from tests.interventions.stub import StubViT

DEPTH = 4
PHASES = segment(np.eye(DEPTH), 2)


def batch(count=5, start=0, size=32):
    pictures = torch.randn(count + start, 3, size, size, generator=torch.Generator().manual_seed(0))[start:]
    return Batch(pictures, torch.arange(start, start + count), None)


def angle(first, second):
    first, second = first.double(), second.double()
    return ((first * second).sum(-1) / first.norm(dim=-1) / second.norm(dim=-1)).clamp(-1, 1).acos()


def cell(table, **place):
    for name, value in place.items():
        table = table[table[name] == value]
    assert len(table) == 1
    return table.iloc[0]


def test_equal_to_perturbing_full_passes(tiny):
    """Every start, eps and target against its own forward pass from the images, noise added by a hook."""
    inputs = batch()
    sweep = PerturbationSweep(tiny, [0.1, 0.5], ["cls", "registers+patches", "all"], range(DEPTH + 1), seed=3)
    sweep.update(capture(tiny, inputs))
    found, clean = sweep.result(PHASES), capture(tiny, inputs).states
    for start in range(DEPTH + 1):
        for eps in (0.1, 0.5):
            for target in ("cls", "registers+patches", "all"):
                with perturb(tiny, start, eps, target, seed=3):
                    noisy = capture(tiny, inputs).states
                for group, part in tiny.tokens.groups.items():
                    place = {"start": start, "eps": eps, "target": target, "group": group}
                    for layer in range(start, DEPTH + 1):
                        angles = angle(noisy[layer], clean[layer])[:, part].mean(1)
                        row = cell(found.angles, **place, layer=layer)
                        assert row["mean"] == pytest.approx(angles.mean().item(), rel=1e-3, abs=2e-6)
                        assert row["sd"] == pytest.approx(angles.std().item(), rel=5e-3, abs=2e-6)
                        assert row["perturbed"] == (target == "all" or group in target)
                        assert row["n_images"] == 5
                    if start < DEPTH and (target == "all" or group in target):
                        first = angle(noisy[start], clean[start])[:, part].mean(1)
                        last = angle(noisy[-1], clean[-1])[:, part].mean(1)
                        rate = ((last / first).log() / (DEPTH - start)).mean().item()
                        assert cell(found.growth, **place)["mean"] == pytest.approx(rate, rel=1e-2, abs=1e-3)
    assert len(found.angles) == 2 * 3 * 3 * 15
    assert set(found.growth.query("target == 'cls'")["group"]) == {"cls"}


@pytest.mark.parametrize("rate", [0.7, 1.0, 1.3])
def test_a_contraction_with_known_rate(rate):
    """Blocks that scale everything off the first axis: small angles to a state near it scale with them."""

    def scale(state):
        return torch.cat([state[..., :1], rate * state[..., 1:]], dim=-1)

    model = StubViT([scale] * 6)
    pictures = torch.zeros(8, 3, 4, 4)
    pictures[:, 0, ::2, ::2] = 1  # every token is the first axis
    sweep = PerturbationSweep(model, [1e-4], ["patches"], range(7))
    sweep.update(capture(model, Batch(pictures, torch.arange(8), None)))
    found = sweep.result(PHASES)
    for start in range(6):
        row = cell(found.growth, start=start, group="patches")
        assert row["mean"] == pytest.approx(math.log(rate), abs=1e-4)
        angles = found.angles.query("start == @start and group == 'patches'").sort_values("layer")["mean"].to_numpy()
        np.testing.assert_allclose(angles, angles[0] * rate ** np.arange(len(angles)), rtol=1e-3)
        first, second = rate ** np.floor(math.log(0.5, 0.7)), rate ** np.ceil(math.log(0.5, 0.7))
        if rate < 1 and start <= 4:  # falls below one half in the second layer: 0.7, 0.49
            assert row["half_repair"] == pytest.approx(1 + (first - 0.5) / (first - second), abs=1e-3)
        else:
            assert math.isnan(row["half_repair"])
    untouched = found.angles.query("group == 'cls'")
    assert (untouched["mean"] == 0).all()  # tokens do not meet in this model


def test_half_repair_by_hand():
    assert half_repair(np.array([1.0, 0.8, 0.4, 0.9])) == pytest.approx(1.75)
    assert half_repair(np.array([1.0, 0.5])) == pytest.approx(1)
    assert math.isnan(half_repair(np.array([1.0, 0.51])))
    assert math.isnan(half_repair(np.array([0.0, 0.0])))


def test_angles_are_exact_from_tiny_to_opposite():
    generator = torch.Generator().manual_seed(0)
    clean = torch.randn(1, 6, 64, generator=generator)
    off = torch.randn(1, 6, 64, generator=generator)
    off = off - (off * clean).sum(-1, keepdim=True) / clean.square().sum(-1, keepdim=True) * clean
    off = off / off.norm(dim=-1, keepdim=True) * clean.norm(dim=-1, keepdim=True)
    for true in (1e-5, 1e-3, 0.5, 2.0, 3.1):
        turned = 1.7 * (math.cos(true) * clean + math.sin(true) * off)
        torch.testing.assert_close(angles_to(turned, clean), torch.full((1, 6), true), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("together", [1, 3, 100])
def test_batches_and_chunks_do_not_matter(tiny, together):
    whole = PerturbationSweep(tiny, [0.2], ["cls", "all"], range(DEPTH + 1), together=7)
    whole.update(capture(tiny, batch()))
    parts = PerturbationSweep(tiny, [0.2], ["cls", "all"], range(DEPTH + 1), together=together)
    parts.update(capture(tiny, batch(2)))
    parts.update(capture(tiny, batch(3, start=2)))
    first, second = whole.result(PHASES), parts.result(PHASES)
    np.testing.assert_allclose(first.angles["mean"], second.angles["mean"], rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(first.growth["mean"], second.growth["mean"], rtol=1e-2, atol=1e-4)


def test_running_out_of_memory_takes_fewer_runs_together(tiny, monkeypatch):
    sweep = PerturbationSweep(tiny, [0.2], ["all"], range(DEPTH + 1), together=5)
    expected = PerturbationSweep(tiny, [0.2], ["all"], range(DEPTH + 1), together=1)
    clean = capture(tiny, batch())
    block, largest = tiny.blocks[2].forward, []

    def small(state, *args, **kwargs):
        largest.append(len(state))
        if len(state) > 10:
            raise MemoryError
        return block(state, *args, **kwargs)

    monkeypatch.setattr(tiny.blocks[2], "forward", small)
    sweep.update(clean)
    assert max(largest) > 10
    assert sweep.together == 2
    expected.update(clean)
    np.testing.assert_allclose(
        sweep.result(PHASES).angles["mean"], expected.result(PHASES).angles["mean"], rtol=1e-3, atol=1e-6
    )

    def none(*_):
        raise MemoryError

    monkeypatch.setattr(tiny.blocks[2], "forward", none)
    with pytest.raises(BrdynError, match="smaller `batch_size`"):
        sweep.update(clean)


def test_runs_that_fit_only_one_by_one_are_followed(tiny, monkeypatch):
    sweep = PerturbationSweep(tiny, [0.2], ["all"], range(DEPTH + 1), together=5)
    expected = PerturbationSweep(tiny, [0.2], ["all"], range(DEPTH + 1), together=1)
    clean = capture(tiny, batch())
    expected.update(clean)
    block = tiny.blocks[2].forward

    def small(state, *args, **kwargs):
        if len(state) > 5:
            raise MemoryError
        return block(state, *args, **kwargs)

    monkeypatch.setattr(tiny.blocks[2], "forward", small)
    sweep.update(clean)
    assert sweep.together == 1
    np.testing.assert_allclose(sweep.result(PHASES).angles["mean"], expected.result(PHASES).angles["mean"], rtol=1e-6)


def test_over_a_set_of_images(tiny, noise_folder):
    images = load_images(noise_folder, tiny, n=10)
    stream = Stream(workers=0, batch_size=4)
    found = perturbation_repair(tiny, images, eps=(0.3, 0.1), starts=(4, 0), stream=stream)
    clean = layer_similarity(tiny, images, stream=stream)
    assert found.phases.to_dict() == segment(clean).to_dict()  # found in the same pass, from the clean states
    assert list(dict.fromkeys(found.angles["start"])) == [0, 4]
    assert list(dict.fromkeys(found.angles["target"])) == ["cls", "registers", "patches", "all"]
    assert (found.angles["n_images"] == 10).all()
    assert len(found.final("cls", "cls", 0.3)) == 2
    assert found.final("cls", "cls", 0.3)[1] == pytest.approx(math.atan(0.3), rel=0.1)
    assert images.report.count == 10


def test_noise_that_overflows_is_an_error(tiny):
    sweep = PerturbationSweep(tiny, [1e38], ["all"], [2])
    with pytest.raises(BrdynError, match=r"noise of 1e\+38 on all at layer 2 .* not finite in float32"):
        sweep.update(capture(tiny, batch()))


def test_no_noise_is_repaired_at_once(tiny):
    sweep = PerturbationSweep(tiny, [0.0], ["all"], range(DEPTH + 1))
    sweep.update(capture(tiny, batch()))
    found = sweep.result(PHASES)
    np.testing.assert_allclose(found.angles["mean"], 0, atol=2e-3)
    assert len(found.growth) == 0


def test_angles_that_end_at_zero_have_no_growth_rate():
    """A last block that forgets the images whose first value is 0: of them no logarithm is taken."""

    def forget(state):
        return torch.where(state[:, :1, :1] > 0, 3 * state, 1.0)

    model = StubViT([lambda state: state, forget])
    pictures = torch.ones(5, 3, 4, 4)
    pictures[:3, 0, ::2, ::2] = 0
    sweep = PerturbationSweep(model, [0.1], ["patches"], [0, 1])
    sweep.update(capture(model, Batch(pictures, torch.arange(5), None)))
    found = sweep.result(PHASES)
    for start in (0, 1):
        row = cell(found.growth, start=start, group="patches")
        assert row["n_images"] == 2
        assert row["mean"] == pytest.approx(0, abs=1e-5)
        assert row["sd"] == pytest.approx(0, abs=1e-5)
        last = cell(found.angles, start=start, group="patches", layer=2)
        first = cell(found.angles, start=start, group="patches", layer=start)
        assert last["n_images"] == first["n_images"] == 5
        assert last["mean"] == pytest.approx(2 / 5 * first["mean"], rel=0.15)  # three of five at zero


def test_final_angles_by_start():
    """Chosen by target, group and eps, at the last layer alone, in the order of the starts."""
    rows = [
        {"start": start, "eps": eps, "target": target, "group": group, "layer": layer,
         "mean": start + 10 * layer + 100 * eps + 1000 * (target == "all") + 10_000 * (group == "cls")}
        for target in ("cls", "all") for group in ("cls", "patches") for eps in (1.0, 2.0)
        for start in (2, 0, 1) for layer in range(start, 3)
    ]  # fmt: skip
    found = Repair(pd.DataFrame(rows), pd.DataFrame(), PHASES)
    assert found.final("all", "patches", 2.0).tolist() == [1220, 1221, 1222]
    assert found.final("cls", "cls", 1.0).tolist() == [10_120, 10_121, 10_122]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"eps": (-1.0,)}, "eps -1"),
        ({"eps": ()}, "eps is empty"),
        ({"starts": (0, 9)}, "layer 9 is not from 0"),
        ({"targets": ("distillation",)}, "no 'distillation'"),
        ({"targets": ()}, "no tokens to perturb"),
    ],
)
def test_bad_requests(tiny, noise_folder, options, words):
    with pytest.raises(UsageError, match=words):
        perturbation_repair(tiny, load_images(noise_folder, tiny), **options, stream=Stream(workers=0))


def test_what_fits_is_a_power_of_two(tiny):
    assert fitting_images(tiny) & (fitting_images(tiny) - 1) == 0
    assert 1 <= fitting_images(tiny) <= 16


def contraction(state):
    """Half of the way to one place, whatever the state."""
    place = torch.linspace(-1, 1, state.shape[-1], dtype=state.dtype)
    return place + 0.5 * (state - place)


def repaired(dtype, eps, **options):
    model = StubViT([contraction] * DEPTH).to(dtype)
    inputs = Batch(batch(size=4).images.to(dtype), torch.arange(5), None)
    sweep = PerturbationSweep(model, eps, ["cls", "patches"], range(DEPTH + 1), **options)
    sweep.update(capture(model, inputs))
    return sweep.result(PHASES)


def test_half_precision_does_not_tell_what_rounding_hides():
    """A contraction halves noise in every block, to less than rounding leaves: no growth is made of that."""
    exact, half = (repaired(dtype, [0.004, 0.5]) for dtype in (torch.float32, torch.bfloat16))
    assert exact.rounding == {}
    assert exact.growth["mean"].notna().all()
    assert set(half.rounding) == {"cls", "patches"}
    assert all(0 < angle < 0.02 for angle in half.rounding.values())
    assert list(half.angles["eps"].unique()) == [0.004, 0.5]  # no row of the noise that rounding is judged by
    assert half.angles[["start", "eps", "target", "group", "layer"]].equals(
        exact.angles[["start", "eps", "target", "group", "layer"]]
    )
    small, large = (half.growth[half.growth["eps"] == eps] for eps in (0.004, 0.5))
    truth = exact.growth[exact.growth["eps"] == 0.5]
    assert small[["mean", "low", "high", "half_repair"]].isna().all(axis=None)
    told = large["mean"].notna().to_numpy()
    assert told.sum() >= len(large) - 2
    np.testing.assert_allclose(large["mean"][told], truth["mean"][told], atol=0.12)
    assert f"({int(half.growth['mean'].isna().sum())} of {len(half.growth)} cases" in half.summary()
    assert "cls neither grows nor shrinks by what is known" in replace(half, growth=small).answer()
    again = Repair.from_content(parse(to_json(half.content())), Path())
    assert again.rounding == half.rounding


def test_noise_that_never_halves_is_counted_where_half_is_gone():
    """After one block from one state, never from two others: from most it never is."""
    found = repaired(torch.float32, [0.1])
    rows = found.growth[(found.growth["target"] == "cls") & (found.growth["start"] < 3)]
    gone = [replace(found, growth=rows.assign(half_repair=values)).overview()[0]["half gone after blocks"]
            for values in ([1.0, math.nan, math.nan], [1.0, 2.0, math.nan])]  # fmt: skip
    assert math.isnan(gone[0])
    assert gone[1] == 2
