"""Every similarity measure against its definition in float64, and its behaviour as a stream."""

import numpy as np
import pytest
import scipy.stats
import torch

from brdyn.data import load_images
from brdyn.errors import BrdynError, UsageError
from brdyn.measures import SIMILARITIES, layer_similarity, similarity_metric
from brdyn.measures.bootstrap import poisson_weights
from brdyn.measures.cka import MINIBATCH
from brdyn.measures.cosine import gram_by_image
from brdyn.models import TokenLayout
from brdyn.random_keys import random_keys
from brdyn.trajectory import Stream, Trajectory, trajectories

LAYOUT = TokenLayout.with_prefix((4, 4), {"cls": 1, "registers": 2})


@pytest.fixture(scope="module")
def states():
    """Correlated random states (L + 1, B, N, D) = (5, 40, 19, 6)."""
    generator = torch.Generator().manual_seed(0)
    steps = torch.randn(5, 40, 19, 6, generator=generator) + 0.5
    return steps.cumsum(0) + torch.randn(5, 1, 1, 6, generator=generator)


def stream(states, sizes, layout=LAYOUT):
    start = 0
    for size in sizes:
        part = states[:, start : start + size]
        yield Trajectory(part, layout, torch.arange(start, start + size))
        start += size


def run(metric, states, sizes=(40,)):
    for trajectory in stream(states, sizes):
        metric.update(trajectory)
    return metric.result()


def build(kind, tokens="cls+patches", replicates=20, seed=0):
    extra = {"width": 6} if kind in ("cka", "procrustes") else {}
    return SIMILARITIES[kind](LAYOUT, 4, tokens, replicates, seed, **extra)


def group_means(states, group):
    part = slice(None) if group == "all" else LAYOUT[group]
    return states[1:, :, part].double().mean(2).numpy()  # (L, B, D)


def direct_cosine(states, groups):
    total = np.zeros((4, 4))
    for group in groups:
        means = group_means(states, group)
        for a in range(4):
            for b in range(4):
                norms = np.linalg.norm(means[a], axis=-1) * np.linalg.norm(means[b], axis=-1)
                total[a, b] += ((means[a] * means[b]).sum(-1) / norms).mean()
    return total / len(groups)


def direct_token_cosine(states, groups):
    total = np.zeros((4, 4))
    for group in groups:
        part = slice(None) if group == "all" else LAYOUT[group]
        tokens = states[1:, :, part].double().numpy()
        for a in range(4):
            for b in range(4):
                norms = np.linalg.norm(tokens[a], axis=-1) * np.linalg.norm(tokens[b], axis=-1)
                total[a, b] += ((tokens[a] * tokens[b]).sum(-1) / norms).mean()
    return total / len(groups)


def direct_hsic(x, y):
    """Unbiased HSIC by the formula of Song et al. 2012, from raw Gram matrices."""
    count = len(x)
    k, m = x @ x.T, y @ y.T
    np.fill_diagonal(k, 0)
    np.fill_diagonal(m, 0)
    ones = np.ones(count)
    trace = np.trace(k @ m)
    product = (ones @ k @ ones) * (ones @ m @ ones) / ((count - 1) * (count - 2))
    cross = 2 * (ones @ k @ m @ ones) / (count - 2)
    return (trace + product - cross) / (count * (count - 3))


def dealt(count, seed=0):
    """Positions of the minibatches of so many images."""
    order = random_keys(np.arange(count), seed).argsort()
    return np.array_split(order, max(1, count // MINIBATCH))


def hsic_of_minibatches(states, group, minibatches):
    """`(minibatches, 4, 4)`, by the formula."""
    means = group_means(states, group)
    return np.array(
        [
            [[direct_hsic(means[a, chosen], means[b, chosen]) for b in range(4)] for a in range(4)]
            for chosen in minibatches
        ]
    )


def direct_cka(states, groups, minibatches=None):
    total = np.zeros((4, 4))
    for group in groups:
        hsic = hsic_of_minibatches(states, group, minibatches or dealt(states.shape[1])).sum(0)
        total += hsic / np.sqrt(np.outer(np.diag(hsic), np.diag(hsic)))
    return total / len(groups)


def direct_procrustes(states, groups):
    total = np.zeros((4, 4))
    for group in groups:
        means = group_means(states, group)
        centred = means - means.mean(1, keepdims=True)
        unit = centred / np.linalg.norm(centred, axis=(1, 2), keepdims=True)
        for a in range(4):
            for b in range(4):
                u, _, vt = np.linalg.svd(unit[a].T @ unit[b])
                distance = np.linalg.norm(unit[a] @ (u @ vt) - unit[b])  # best rotation applied
                total[a, b] += 1 - distance**2 / 2
    return total / len(groups)


DIRECT = {
    "cosine": direct_cosine,
    "token-cosine": direct_token_cosine,
    "cka": direct_cka,
    "procrustes": direct_procrustes,
}
GROUPS = {
    "cls+patches": ["cls", "patches"],
    "cls": ["cls"],
    "registers": ["registers"],
    "patches": ["patches"],
    "all": ["all"],
}


@pytest.mark.parametrize("tokens", GROUPS)
@pytest.mark.parametrize("kind", SIMILARITIES)
def test_equals_the_definition(states, kind, tokens):
    found = run(build(kind, tokens), states, sizes=(7, 20, 13))
    np.testing.assert_allclose(found.matrix, DIRECT[kind](states, GROUPS[tokens]), atol=1e-6)
    np.testing.assert_allclose(np.diag(found.matrix), 1, atol=1e-6)
    assert found.n_images == 40
    assert found.tokens == tokens


@pytest.mark.parametrize("kind", SIMILARITIES)
def test_batches_do_not_matter(states, kind):
    whole, parts = run(build(kind), states), run(build(kind), states, sizes=(1, 30, 9))
    np.testing.assert_allclose(whole.matrix, parts.matrix, atol=1e-7)
    if whole.replicates is not None:
        np.testing.assert_allclose(whole.replicates, parts.replicates, atol=1e-7)


def test_half_precision_states_are_reduced_in_float32(states):
    half = run(build("cosine"), states.bfloat16())
    exact = direct_cosine(states.bfloat16().float(), ["cls", "patches"])
    np.testing.assert_allclose(half.matrix, exact, atol=1e-6)


def test_bootstrap_is_the_weighted_mean_of_images(states):
    metric = build("cosine", replicates=8, seed=3)
    found = run(metric, states)
    weights = poisson_weights(list(range(40)), 8, seed=3).numpy()
    per_image = np.stack([direct_cosine(states[:, i : i + 1], ["cls", "patches"]) for i in range(40)])
    expected = np.einsum("nr,nab->rab", weights, per_image) / weights.sum(0)[:, None, None]
    np.testing.assert_allclose(found.replicates, expected, atol=1e-6)


def test_weights_are_poisson_and_independent():
    """Their distribution by a chi-square test, and no correlation between units or between replicates."""
    weights = poisson_weights(torch.arange(2000), 100, seed=5).numpy()
    counts = np.bincount(weights.astype(int).ravel(), minlength=6)
    expected = scipy.stats.poisson.pmf(np.arange(5), 1.0) * weights.size
    seen = [*counts[:5], counts[5:].sum()]
    assert scipy.stats.chisquare(seen, [*expected, weights.size - expected.sum()]).pvalue > 1e-3
    for table, size in ((weights[:300], 100), (weights.T[:100], 2000)):
        between = np.corrcoef(table)[np.triu_indices(len(table), 1)]
        assert abs(between.mean()) < 5 / np.sqrt(size * len(between))
        assert between.std() == pytest.approx(size**-0.5, rel=0.1)


def test_poisson_weights():
    weights = poisson_weights(torch.arange(400), 300, seed=1)
    assert float(weights.mean()) == pytest.approx(1, abs=0.01)
    assert float(weights.var()) == pytest.approx(1, abs=0.02)
    assert torch.equal(weights[7], poisson_weights([7], 300, seed=1)[0])
    assert not torch.equal(weights[7], weights[8])
    assert not torch.equal(weights[7], poisson_weights([7], 300, seed=2)[0])


def test_bootstrap_spread_matches_the_standard_error(states):
    found = run(build("cosine", replicates=2000), states)
    per_image = np.stack([direct_cosine(states[:, i : i + 1], ["cls", "patches"])[0, 3] for i in range(40)])
    assert found.replicates[:, 0, 3].std() == pytest.approx(per_image.std() / np.sqrt(40), rel=0.1)


def test_metrics_merge_like_one(states):
    """What happens between processes: states are summed."""
    for kind in SIMILARITIES:
        whole = run(build(kind), states)
        first, second = build(kind), build(kind)
        for metric, part in ((first, slice(0, 32)), (second, slice(32, 40))):
            metric.update(Trajectory(states[:, part], LAYOUT, torch.arange(40)[part]))
        for name in first._reductions:
            ours, theirs = getattr(first, name), getattr(second, name)
            setattr(first, name, ours + theirs)  # sums, or lists
        np.testing.assert_allclose(first.result().matrix, whole.matrix, atol=1e-9)


@pytest.mark.parametrize(("count", "sizes"), [(4, [4]), (20, [20]), (31, [31]), (34, [17, 17]), (39, [20, 19])])
def test_cka_deals_all_images_to_minibatches_of_even_size(states, count, sizes):
    """A small one would count as much as the others, and be noisier."""
    part = states[:, :count]
    found = run(build("cka"), part, sizes=(count,))
    assert found.n_images == count
    order = random_keys(np.arange(count), 0).argsort()
    minibatches = np.split(order, np.cumsum(sizes)[:-1])
    np.testing.assert_allclose(found.matrix, direct_cka(part, ["cls", "patches"], minibatches), atol=1e-6)


def test_cka_needs_four_images(states):
    with pytest.raises(BrdynError, match="cka needs at least 4 readable images, and had fewer; use more"):
        run(build("cka"), states[:, :3], sizes=(3,))


def test_the_bootstrap_of_cka_weighs_minibatches_by_its_seed(states):
    found = run(build("cka", replicates=6, seed=4), states)
    weights = poisson_weights([0, 1], 6, seed=4).numpy()
    expected = np.zeros((6, 4, 4))
    for group in ("cls", "patches"):
        drawn = np.einsum("nr,nab->rab", weights, hsic_of_minibatches(states, group, dealt(40, seed=4)))
        own = np.sqrt(np.einsum("raa->ra", drawn))
        expected += drawn / own[:, :, None] / own[:, None] / 2
    assert (weights.sum(0) > 0).all()
    np.testing.assert_allclose(found.replicates, expected, atol=1e-6)


def classes_in_order(seed=0):
    """States of 320 images in ten classes one after another, `(L + 1, B, N, D)`: what differs most is the class."""
    generator = torch.Generator().manual_seed(seed)
    centres = 3 * torch.randn(10, 1, 6, generator=generator).repeat_interleave(32, 0)
    own = torch.randn(5, 320, 1, 6, generator=generator)
    return (own + torch.tensor([0, 0, 1, 1, 1])[:, None, None, None] * centres).expand(-1, -1, 19, -1)


def test_cka_of_classes_in_order_is_that_of_shuffled_ones():
    """And of the whole set at once, of which minibatches are to tell without bias."""
    ordered = classes_in_order()
    shuffled = ordered[:, torch.randperm(320, generator=torch.Generator().manual_seed(1))]
    found = [run(build("cka", "cls"), states, sizes=(320,)) for states in (ordered, shuffled)]
    whole = direct_cka(ordered, ["cls"], [np.arange(320)])
    assert whole[1, 3] > 0.8  # of one class alone, by centring in runs of 16, 0
    for one in found:
        np.testing.assert_allclose(one.matrix, whole, atol=0.08)
    spread = found[0].replicates[:, 1, 3].std()
    assert abs(found[0].matrix[1, 3] - whole[1, 3]) < 3 * spread


def test_cka_keeps_a_bounded_number_of_images_drawn_from_all(states, monkeypatch):
    """The same ones whatever the batches, all dealt as they would be without the others."""
    monkeypatch.setattr("brdyn.measures.cka.SPARE", 5)
    found = [
        run(SIMILARITIES["cka"](LAYOUT, 4, "cls", 0, 0, width=6, most=24), states, sizes)
        for sizes in ((40,), (1, 30, 9))
    ]
    chosen = random_keys(np.arange(40), 0).argsort()[:24]
    expected = direct_cka(states, ["cls"], [chosen])
    for one in found:
        assert one.n_images == 24
        np.testing.assert_allclose(one.matrix, expected, atol=1e-6)


def test_cka_takes_a_second_set_of_images_with_the_same_positions(states):
    metric = build("cka")
    for part in (slice(0, 16), slice(16, 32)):
        metric.update(Trajectory(states[:, part], LAYOUT, torch.arange(16)))
    assert metric.result().n_images == 32


def test_cka_can_be_asked_midway_and_reset(states):
    whole = run(build("cka"), states)
    metric = build("cka")
    for trajectory in stream(states, (9, 9)):
        metric.update(trajectory)
    metric.result()
    metric.update(Trajectory(states[:, 18:], LAYOUT, torch.arange(18, 40)))
    metric._computed = None
    np.testing.assert_allclose(metric.result().matrix, whole.matrix, atol=1e-9)
    metric.reset()
    again = run(metric, states)
    assert again.n_images == 40
    np.testing.assert_allclose(again.matrix, whole.matrix, atol=1e-9)


@pytest.mark.parametrize(("kind", "count"), [("cosine", 1), ("cka", 31)])
def test_one_unit_gives_no_bootstrap(states, kind, count):
    found = run(build(kind), states[:, :count], sizes=(count,))
    assert found.replicates is None
    assert found.unit.startswith("none (only 1")


def test_cka_of_constant_features_is_an_error(states):
    frozen = states.clone()
    frozen[2] = 1.0
    with pytest.raises(BrdynError, match="cka is not defined at layer 2"):
        run(build("cka"), frozen)


def test_cka_ignores_rotation_scale_and_shift_and_cosine_does_not(states):
    rotation = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(1)))[0]
    moved = states.clone()
    moved[2] = 3 * moved[1] @ rotation + 5
    for kind in ("cka", "procrustes"):
        assert run(build(kind), moved).matrix[0, 1] == pytest.approx(1, abs=1e-5)
    assert run(build("cosine"), moved).matrix[0, 1] < 0.99


def test_model_without_cls_falls_back_on_patches(states):
    layout = TokenLayout.with_prefix((4, 4), {})
    metric = SIMILARITIES["cosine"](layout, 4, replicates=0)
    for trajectory in stream(states[:, :, 3:], (40,), layout):
        metric.update(trajectory)
    found = metric.result()
    assert found.tokens == "patches"
    np.testing.assert_allclose(found.matrix, direct_cosine(states, ["patches"]), atol=1e-6)
    assert found.replicates is None
    with pytest.raises(UsageError, match="no 'cls' tokens; its token groups are patches"):
        SIMILARITIES["cosine"](layout, 4, "cls+patches")


def test_wrong_requests(tiny):
    with pytest.raises(UsageError, match="unknown similarity 'euclid'; choose one of cosine"):
        similarity_metric("euclid", tiny)
    with pytest.raises(UsageError, match="no 'distillation' tokens; its token groups are cls, registers, patches"):
        similarity_metric("cosine", tiny, tokens="distillation")
    with pytest.raises(UsageError, match="twice"):
        similarity_metric("cosine", tiny, tokens="cls+cls")


def test_procrustes_says_when_it_would_not_fit():
    with pytest.raises(UsageError, match="too much for this device; use the similarity cka"):
        SIMILARITIES["procrustes"](LAYOUT, 200, "cls", 0, 0, width=8192)


def test_end_to_end_equals_stacked_trajectories(tiny, noise_folder):
    images = load_images(noise_folder, tiny)
    found = layer_similarity(tiny, images, stream=Stream(batch_size=9, workers=1))
    stacked = torch.cat([t.stack() for t in trajectories(tiny, images, stream=Stream(workers=0))], dim=1)
    assert stacked.shape[:2] == (5, 40)
    means = np.stack([stacked[1:, :, part].double().mean(2).numpy() for part in (slice(0, 1), slice(3, None))])
    unit = means / np.linalg.norm(means, axis=-1, keepdims=True)
    expected = np.einsum("glbd,gmbd->lm", unit, unit) / 80
    np.testing.assert_allclose(found.matrix, expected, atol=1e-6)
    assert found.matrix[0, 3] < 0.99  # the tiny model does something


@pytest.mark.parametrize("kind", ["cosine", "token-cosine"])
def test_zero_tokens_have_no_cosine(states, kind):
    empty = states.clone()
    empty[3, 5] = 0
    with pytest.raises(BrdynError, match=f"{kind} is not defined at layer 3: the tokens of an image are all zero"):
        run(build(kind), empty)


def test_zero_layers_are_nan_and_the_others_as_before():
    features = torch.tensor([[[3.0, 4.0]], [[0.0, 0.0]], [[4.0, 3.0]]])
    found = gram_by_image(features)[0]
    assert found[[0, 0, 2], [0, 2, 2]].tolist() == pytest.approx([1.0, 0.96, 1.0])
    assert found[1].isnan().all()
    assert found[:, 1].isnan().all()
