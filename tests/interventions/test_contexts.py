"""Interventions do what they say, and leave the model as it was."""

import pytest
import torch
from timm.models.beit import Beit
from torch import nn

from brdyn.data import Batch
from brdyn.errors import UsageError
from brdyn.interventions import delete, perturb, reorder, replace, shuffle, swap
from brdyn.interventions.contexts import canonical
from brdyn.models import Preprocessing, load_model, positions, timm_family
from brdyn.models.loaded import Loaded
from brdyn.models.request import ModelRequest
from brdyn.trajectory import capture
from tests.conftest import scramble, tiny_vit

DEPTH = 4


def images(count=3):
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def batch(count=3):
    return Batch(images(count), torch.arange(count), None)


def by_hand(model, order):
    state = model.embed(images())
    for layer in order:
        state = model.blocks[layer - 1](state)
    return model.norm(state)


def snapshot(model):
    """Everything an intervention could leave behind: modules, weights, hooks."""
    names = [name for name, _ in model.named_modules()]
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())
    return (
        names,
        [id(block) for block in model.blocks],
        hooks,
        {k: v.clone() for k, v in model.state_dict().items()},
    )


def unchanged(before, model):
    after = snapshot(model)
    return before[:3] == after[:3] and all(torch.equal(after[3][name], value) for name, value in before[3].items())


CASES = {
    "swap": (lambda model: swap(model, 2, 4), [1, 4, 3, 2]),
    "delete": (lambda model: delete(model, 3), [1, 2, 4]),
    "delete two": (lambda model: delete(model, 1, 4), [2, 3]),
    "replace": (lambda model: replace(model, 2, by=3), [1, 3, 3, 4]),
    "reorder": (lambda model: reorder(model, [4, 4, 1, 2, 3]), [4, 4, 1, 2, 3]),
    "shuffle a pair": (lambda model: shuffle(model, [3, 2]), [1, 3, 2, 4]),
}


@pytest.mark.parametrize("case", CASES)
def test_the_order_of_the_blocks(tiny, case):
    make, order = CASES[case]
    before, expected = snapshot(tiny), by_hand(tiny, order)
    with make(tiny) as model:
        assert torch.equal(model(images()), expected)
        states = capture(model, batch()).states
        assert len(states) == len(order) + 1
        torch.testing.assert_close(model.norm(states[-1]), expected)
    assert unchanged(before, tiny)
    assert torch.equal(tiny(images()), by_hand(tiny, range(1, DEPTH + 1)))


@pytest.mark.parametrize("name", ["beit of timm", "eva02_tiny_patch14_224", "dinov2 of transformers"])
def test_other_families(name, tmp_path):
    """Adapters whose blocks take more than the state."""
    if name.startswith("dinov2"):
        from transformers import Dinov2Config, Dinov2Model

        config = Dinov2Config(hidden_size=32, num_hidden_layers=12, num_attention_heads=2, image_size=28)
        Dinov2Model(config).save_pretrained(tmp_path / "dinov2")
        model = load_model(str(tmp_path / "dinov2"), image_size=(28, 28))
    elif name.startswith("beit"):
        backbone = Beit(
            img_size=32,
            patch_size=8,
            embed_dim=32,
            depth=12,
            num_heads=4,
            use_rel_pos_bias=True,
            init_values=0.1,
        )
        model = timm_family.adapt(
            ModelRequest("beit"),
            "timm",
            Loaded(backbone),
            "test",
            positions.RELATIVE,
            Preprocessing((32, 32)),
        )
    else:
        model = load_model(name, init="random", image_size=112)
    scramble(model.blocks)
    pictures = torch.randn(1, 3, *model.info.image_size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        state = model.embed(pictures)
        for layer in [1, 7, *range(3, 7), 2, *range(8, 13)]:
            state = model.blocks[layer - 1](state)
        with swap(model, 2, 7):
            torch.testing.assert_close(model(pictures), model.norm(state))
        assert not torch.allclose(model(pictures), model.norm(state))


@pytest.mark.parametrize("case", [*CASES, "perturb", "perturb the embedding"])
def test_undone_after_an_exception(tiny, case):
    make = {
        "perturb": lambda model: perturb(model, 2, 0.1),
        "perturb the embedding": lambda model: perturb(model, 0, 0.1),
    }.get(case) or CASES[case][0]
    before = snapshot(tiny)
    with pytest.raises(RuntimeError, match="inside"), make(tiny):
        raise RuntimeError("inside")
    with pytest.raises(UsageError), make(tiny) as model:  # the model itself refuses these images
        model(torch.zeros(1, 3, 8, 8))
    assert unchanged(before, tiny)


def test_nested_interventions(tiny):
    before, expected = snapshot(tiny), by_hand(tiny, [2, 1, 4])
    with swap(tiny, 1, 2), delete(tiny, 3):
        assert torch.equal(tiny(images()), expected)
    with swap(tiny, 1, 3), perturb(tiny, 1, 0.5, "cls"):
        changed = capture(tiny, batch()).states[1] - tiny.blocks[0](tiny.embed(images()))
        assert changed[:, 0].norm(dim=-1).min() > 0
        torch.testing.assert_close(changed[:, 1:], torch.zeros_like(changed[:, 1:]))
    assert unchanged(before, tiny)


def test_a_perturbation_must_be_innermost(tiny):
    """Its place in depth would move with the block."""
    before = snapshot(tiny)
    with perturb(tiny, 3, 0.1), pytest.raises(UsageError, match="must be the innermost"), swap(tiny, 3, 4):
        pass
    with swap(tiny, 1, 4), perturb(tiny, 0, 0.5), perturb(tiny, 2, 0.5):
        noisy = capture(tiny, batch()).states
    assert unchanged(before, tiny)
    with swap(tiny, 1, 4):
        clean = capture(tiny, batch()).states
    torch.testing.assert_close((noisy[0] - clean[0]).norm(dim=-1), 0.5 * clean[0].norm(dim=-1))


def test_a_group_named_twice_is_perturbed_once(tiny):
    clean = capture(tiny, batch()).states
    with perturb(tiny, 1, 0.2, "cls+registers+cls"):
        noisy = capture(tiny, batch()).states
    change = (noisy[1] - clean[1])[:, :3].norm(dim=-1)
    torch.testing.assert_close(change, 0.2 * clean[1][:, :3].norm(dim=-1))
    assert canonical(tiny.tokens, "registers+cls") == "cls+registers"
    assert canonical(tiny.tokens, "cls+all") == "all"


@pytest.mark.parametrize("layer", [0, 2, DEPTH])
@pytest.mark.parametrize(("tokens", "part"), [("cls", [0]), ("registers+cls", [0, 1, 2]), ("all", list(range(19)))])
def test_noise_has_its_size_and_place(tiny, layer, tokens, part):
    before, clean = snapshot(tiny), capture(tiny, batch()).states
    with perturb(tiny, layer, 0.3, tokens, seed=1) as model:
        noisy = capture(model, batch()).states
        again = model(images())  # three further images: other noise
    change = noisy[layer] - clean[layer]
    others = [token for token in range(19) if token not in part]
    torch.testing.assert_close(
        change[:, part].norm(dim=-1), 0.3 * clean[layer][:, part].norm(dim=-1), rtol=1e-4, atol=0
    )
    assert not change[:, others].any()
    for earlier in range(layer):
        assert torch.equal(noisy[earlier], clean[earlier])
    assert not torch.allclose(again, tiny.norm(noisy[-1]))
    with perturb(tiny, layer, 0.3, tokens, seed=1) as model:
        assert torch.equal(capture(model, batch()).states[-1], noisy[-1])
        # The fourth image has the noise of the fourth, however the first three were batched.
    with perturb(tiny, layer, 0.3, tokens, seed=1) as model:
        parts = torch.cat([model(images()[:2]), model(images()[2:])])
        torch.testing.assert_close(parts, tiny.norm(noisy[-1]))
    assert unchanged(before, tiny)


def test_noise_is_gaussian_and_its_own_for_each_image_layer_and_seed():
    from brdyn.interventions.noise import relative_noise

    states = torch.ones(200, 5, 64)
    noise = relative_noise(states, torch.arange(200), 3, 0) / 8 * 64**0.5
    assert abs(noise.mean()) < 0.02
    assert noise.var() == pytest.approx(1, rel=0.02)
    kurtosis = (noise**4).mean() / noise.var() ** 2
    assert kurtosis == pytest.approx(3 * 64 / 66, rel=0.03)  # of a direction uniform on the sphere
    for other in (
        relative_noise(states, torch.arange(200), 4, 0),
        relative_noise(states, torch.arange(200), 3, 1),
    ):
        assert abs((other / 8 * 64**0.5 * noise).mean()) < 0.02
    assert abs((noise[0] * noise[1]).mean()) < 0.2


def test_shuffles_are_never_the_true_order_and_reproducible():
    from brdyn.interventions.contexts import shuffled

    for seed in range(50):
        order = shuffled(6, [2, 4, 5], seed)
        assert sorted(order) == [1, 2, 3, 4, 5, 6]
        assert order != [1, 2, 3, 4, 5, 6]
        assert [order[index] for index in (0, 2, 5)] == [1, 3, 6]
        assert order == shuffled(6, [5, 2, 4], seed)
    assert len({tuple(shuffled(6, [2, 4, 5], seed)) for seed in range(50)}) == 5


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda model: swap(model, 0, 2), "layer 0 is not from 1 to 4"),
        (lambda model: swap(model, 1, 5), "layer 5 is not"),
        (lambda model: delete(model, 1, 2, 3, 4), "no layer of 'tiny_vit' would be left"),
        (lambda model: replace(model, 9, 1), "layer 9"),
        (lambda model: shuffle(model, [2]), "at least two"),
        (lambda model: shuffle(model, [2, 2]), "at least two"),
        (lambda model: perturb(model, 5, 0.1), "layer 5"),
        (lambda model: perturb(model, 1, -0.1), "eps -0.1"),
        (lambda model: perturb(model, 1, float("nan")), "eps nan"),
        (lambda model: perturb(model, 1, 0.1, "distillation"), "no 'distillation' tokens"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_changes(tiny, make, words):
    before = snapshot(tiny)
    with pytest.raises(UsageError, match=words), make(tiny):
        pass
    assert unchanged(before, tiny)


def test_blocks_stay_submodules(tiny):
    """A device move inside an intervention reaches every block."""
    with reorder(tiny, [1, 1]) as model:
        assert isinstance(model.blocks, nn.ModuleList)
        assert {id(p) for p in model.blocks.parameters()} == {id(p) for p in tiny.blocks[0].parameters()}


def test_a_deeper_vit_than_it_was():
    model = tiny_vit(depth=2)
    with reorder(model, [1, 2, 1, 2, 1]):
        assert model.depth == 5
        assert len(capture(model, batch()).states) == 6
    assert model.depth == 2
