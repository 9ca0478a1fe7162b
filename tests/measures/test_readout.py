"""The head at every state: the model's own answer at the last one, and the state from which on it stands."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer
from torch import nn

import brdyn
from brdyn.data import Batch, load_images
from brdyn.errors import BrdynError, UsageError
from brdyn.measures.readout import HeadReadout, deciding_state
from brdyn.models import Preprocessing, TokenLayout, timm_family
from brdyn.models.loaded import Loaded
from brdyn.models.request import ModelRequest
from brdyn.trajectory import Stream, Trajectory, capture
from tests.conftest import scramble, tiny_vit

CLASSES = 5
STREAM = Stream(workers=0)
SIZES = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 4, "num_heads": 2, "num_classes": CLASSES}


def with_head(kind=VisionTransformer, **options):
    """A small ViT that classifies."""
    backbone = kind(**SIZES, **options)
    scramble(backbone)
    request = ModelRequest("tiny_vit")
    loaded = Loaded(backbone, "0" * 64)
    model = timm_family.adapt(request, "timm", loaded, "test weights", "none", Preprocessing((32, 32)))
    return model.requires_grad_(False)


def batch_of(images, labels=None):
    pictures = images[..., :32, :32]
    return Batch(pictures, torch.arange(2), torch.full((2,), -1) if labels is None else labels)


def means(metric):
    return metric.table().set_index(["statistic", "layer"])["mean"]


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (VisionTransformer, {"global_pool": "token"}),
        (VisionTransformer, {"global_pool": "avg", "reg_tokens": 2}),
        (VisionTransformer, {"global_pool": "avg", "fc_norm": False, "class_token": False}),
        (VisionTransformer, {"global_pool": "map"}),
        (VisionTransformerDistilled, {}),
    ],
)
def test_the_last_state_is_read_as_the_model_reads_it(images, kind, options):
    model = with_head(kind, **options)
    batch = batch_of(images)
    trajectory = capture(model, batch)
    with torch.no_grad():
        final = model.backbone(batch.images)
        assert torch.equal(model.logits(model.norm(trajectory.states[-1])), final)
        early = model.backbone.forward_head(model.backbone.norm(trajectory.states[1]))
    metric = HeadReadout(model)
    trajectory.labels = final.argmax(-1)
    metric.update(trajectory)
    found = means(metric)
    assert (found["readout_kl", 4], found["readout_agreement", 4], found["readout_accuracy", 4]) == (0, 1, 1)
    truth, own = (one.double().softmax(-1) for one in (final, early))
    assert found["readout_kl", 1] == pytest.approx((truth * (truth / own).log()).sum(-1).mean().item(), rel=1e-5)
    agreement = (early.argmax(-1) == final.argmax(-1)).double().mean().item()
    assert found["readout_agreement", 1] == agreement


def test_a_network_whose_states_are_final_early(images):
    model = with_head()
    model.blocks[2], model.blocks[3] = nn.Identity(), nn.Identity()
    metric = HeadReadout(model)
    metric.update(capture(model, batch_of(images)))
    found = means(metric)
    assert found["readout_kl"].loc[2:].tolist() == [0, 0, 0]
    assert found["readout_kl", 1] > 0
    assert found["readout_decided"].loc[2:].tolist() == [1, 1, 1]
    assert deciding_state(metric.table())[0] <= 2


def stub(classes=3):
    """A model that reads its classes from the one token that there is."""
    layout = TokenLayout.with_prefix((1, 1), {})
    info = SimpleNamespace(name="stub")
    return SimpleNamespace(
        tokens=layout, depth=4, norm=nn.Identity(), classes=classes, info=info, dtype=torch.float32,
        precision="float32", logits=lambda normed: normed[:, 0],
    )  # fmt: skip


def read(classes, labels=None, **options):
    """Images `(B, 5)` by the class that each state says."""
    states = torch.nn.functional.one_hot(torch.tensor(classes), 3).float().transpose(0, 1)[:, :, None] * 2
    metric = HeadReadout(stub(), **options)
    labels = None if labels is None else torch.tensor(labels)
    metric.update(Trajectory(states, metric.layout, torch.arange(len(classes)), labels))
    return metric


def test_the_state_that_decides_is_the_last_at_which_the_class_becomes_the_final_one():
    metric = read([[0, 1, 1, 0, 0], [1, 1, 1, 1, 1], [2, 2, 0, 0, 2]])  # decided at 3, 0 and 4
    found = means(metric)
    np.testing.assert_allclose(found["readout_decided"], [1 / 3, 1 / 3, 1 / 3, 2 / 3, 1])
    np.testing.assert_allclose(found["readout_agreement"], [1, 2 / 3, 1 / 3, 2 / 3, 1])
    mean, low, high = deciding_state(metric.table())
    at = np.array([3, 0, 4])
    half = stats.t.ppf(0.975, 2) * at.std(ddof=1) / 3**0.5
    np.testing.assert_allclose([mean, low, high], [at.mean(), at.mean() - half, at.mean() + half])


def test_shares_of_images_have_wilsons_intervals_also_where_all_agree():
    metric = read([[0, 1, 1, 0, 0], [1, 1, 1, 1, 1], [2, 2, 0, 0, 2]], labels=[0, 1, 0])
    table = metric.table().set_index(["statistic", "layer"])
    for statistic, state, right in (("agreement", 4, 3), ("decided", 0, 1), ("agreement", 2, 1), ("accuracy", 2, 2)):
        row = table.loc[f"readout_{statistic}", state]
        expected = stats.binomtest(right, 3).proportion_ci(method="wilson")
        np.testing.assert_allclose(row[["low", "high"]].astype(float), [expected.low, expected.high], atol=1e-6)
    divergence = table.loc["readout_kl", 1]
    half = stats.t.ppf(0.975, 2) * divergence["sd"] / 3**0.5
    assert divergence["high"] - divergence["mean"] == pytest.approx(half)


def test_divergence_by_hand_and_labels():
    metric = read([[0, 0, 0, 0, 0], [1, 1, 1, 1, 2]], labels=[0, -1])
    found = means(metric)
    other, own = np.exp([0, 2]) / (np.exp(2) + 2)
    expected = (own - other) * np.log(own / other) / 2  # of one image of two
    assert found["readout_kl", 0] == pytest.approx(expected, rel=1e-6)
    assert found["readout_kl", 4] == 0
    rows = metric.table().query("statistic == 'readout_accuracy'")
    assert (rows["mean"].tolist(), rows["n_images"].tolist()) == ([1.0] * 5, [1] * 5)


@pytest.mark.parametrize("of", [{"labels": [0, 3]}, {"labels": None}, {"labels": [0, 1], "with_labels": False}])
def test_no_accuracy_without_labels_of_the_heads_classes(of):
    metric = read([[0, 0, 0, 0, 0], [1, 1, 1, 1, 2]], **of)
    assert "readout_accuracy" not in set(metric.table()["statistic"])


def test_scores_that_are_not_finite_are_refused():
    metric = HeadReadout(stub())
    states = torch.zeros(5, 2, 1, 3)
    states[1, 0, 0, 0] = torch.inf
    with pytest.raises(BrdynError, match="head of 'stub' reads from a state is not finite in float32"):
        metric.update(Trajectory(states, metric.layout, torch.arange(2)))


def test_a_model_without_a_head_is_said_and_the_rest_goes_on(noise_folder):
    model = tiny_vit()
    pictures = load_images(noise_folder, model, n=4)
    found = brdyn.token_dynamics(model, pictures, k=2, measures=["norm", "readout"], stream=STREAM)
    assert found.statistics == ["norm"]
    assert "has no classification head" in found.left_out["readout"]
    with pytest.raises(UsageError, match="'tiny_vit' has no classification head; `brdyn probe --layers all`"):
        brdyn.token_dynamics(model, pictures, k=2, measures=["readout"], stream=STREAM)


def test_the_summary_and_twins(noise_folder):
    model = with_head()
    pictures = load_images(noise_folder, model, n=6)
    options = {"twins": [with_head(reg_tokens=1)], "k": 2, "stream": STREAM}
    found = brdyn.with_null(brdyn.token_dynamics, model, pictures, measures=["readout"], **options)
    mean = deciding_state(found.table)[0]
    value, twins = found.beside()["head: mean state from which the class is the final one"]
    assert value == pytest.approx(mean)
    assert len(twins) == 1
    line = found.answer()
    assert line.startswith("the head reads")
    assert line not in found.remarks()
    assert f"from state {mean:.1f} [" in line
    assert "of 4 on" in line
