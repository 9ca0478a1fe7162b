"""A module of one's own behind the contract: agreement with its own forward, and one clear error for each mistake."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import brdyn
from brdyn.errors import UsageError
from brdyn.interventions.contexts import swap
from brdyn.models import TokenLayout
from brdyn.models.adapter import GIVEN
from brdyn.raptor import FitSettings
from brdyn.trajectory import Stream
from tests.conftest import needs_offline
from tests.models.own_vit import Block, MyViT, adapted, my_vit


def images_of(count=4, seed=1):
    return torch.randn(count, 3, 16, 24, generator=torch.Generator().manual_seed(seed))


def captured(model, images):
    from brdyn.data.image_set import Batch

    return brdyn.capture(model, Batch(images, torch.arange(len(images)), None))


class InPlace(Block):
    def forward(self, state):
        state += self.mlp(self.before(state))
        return state


class Rotated(Block):
    def forward(self, state, *, rope):
        return super().forward(state + rope)


def test_its_states_and_logits_are_those_of_the_modules_own_forward():
    vit = my_vit()
    model = adapted(vit, head=lambda module, normed: module.head(normed[:, 0]), class_names=("a", "b", "c"))
    images = images_of()
    with torch.no_grad():
        states, normed = vit.eval().states(images)
        for ours, theirs in zip(captured(model, images).states, states, strict=True):
            assert torch.equal(ours, theirs)
        assert torch.equal(model(images), normed)
        assert torch.equal(model.logits(model(images)), vit(images))
    assert (model.classes, model.class_names) == (3, ("a", "b", "c"))
    assert model.tokens.sizes() == {"cls": 1, "registers": 2, "patches": 6}
    assert model.tokens.grid == (2, 3)


def test_info_says_where_the_weights_come_from_and_counts_what_the_trunk_uses():
    vit = my_vit()
    info = adapted(vit).info
    head = vit.head.weight.numel() + vit.head.bias.numel()
    assert info.parameters == sum(parameter.numel() for parameter in vit.parameters()) - head
    assert (info.name, info.family, info.weights) == ("MyViT", "own", GIVEN)
    assert (info.layers, info.width, info.heads, info.patch, info.image_size) == (3, 8, 2, 8, (16, 24))
    assert info.digest == adapted(my_vit()).info.digest != adapted(my_vit(seed=1)).info.digest
    assert info.notes == ()


def test_the_module_itself_and_the_random_state_are_left_alone():
    vit = my_vit().train()
    before = torch.get_rng_state()
    model = adapted(vit)
    assert torch.equal(torch.get_rng_state(), before)
    assert vit.training
    assert vit.layers[0].training
    assert all(parameter.requires_grad for parameter in vit.parameters())
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not any(part.training for part in model.modules())
    clean = model(images_of())
    with torch.no_grad():
        vit.positions.zero_()
    assert torch.equal(model(images_of()), clean)


def test_a_shared_block_is_counted_once_and_captured_at_every_layer():
    vit = my_vit(depth=5, shared=True)
    model = adapted(vit)
    assert model.depth == 5
    assert model.block_parameters == sum(parameter.numel() for parameter in vit.layers[0].parameters())
    with torch.no_grad():
        states, _ = vit.eval().states(images_of())
    found = captured(model, images_of()).states
    assert len(found) == 6
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, states, strict=True))


def test_blocks_that_change_their_input_in_place_do_not_change_kept_states():
    vit = my_vit(block=InPlace)
    model = adapted(vit)
    found = captured(model, images_of()).states
    with torch.no_grad():
        state = vit.tokenise(images_of())
        for layer, block in enumerate(vit.layers):
            assert torch.equal(found[layer], state)
            state = state + block.mlp(block.before(state))
    assert torch.equal(found[-1], state)


class Shifting(nn.Module):
    """A final norm that changes its input in place."""

    def forward(self, state):
        return state.sub_(state.mean(-1, keepdim=True))


@pytest.mark.parametrize("norm", [Shifting, None], ids=["norm", "head alone"])
def test_no_part_changes_its_input_in_place(norm):
    """Neither images, nor the last state, nor what a head is given."""
    vit, shift = my_vit(), Shifting()
    vit.ln = None if norm is None else norm()

    def embed(module, images):
        return module.tokenise(images.mul_(2))

    def head(module, normed):
        return module.head(normed.add_(1)[:, 0])

    model, images = adapted(vit, embed=embed, norm=vit.ln, head=head), images_of()
    given = images.clone()
    found = captured(model, given).states
    assert torch.equal(given, images)
    assert not [note for note in model.info.notes if "differ" in note]
    with torch.no_grad():
        state = vit.eval().tokenise(2 * images)
        for layer, block in enumerate(vit.layers):
            assert torch.equal(found[layer], state)
            state = block(state)[0]
    assert torch.equal(found[-1], state)
    normed = model.norm(state)
    assert torch.equal(normed, state if norm is None else shift(state.clone()))
    kept = normed.clone()
    assert torch.equal(model.logits(normed), vit.head(kept[:, 0] + 1))
    assert torch.equal(normed, kept)
    assert torch.equal(found[-1], state)


def test_blocks_get_what_else_they_need_by_apply():
    vit = my_vit(block=Rotated)
    model = adapted(vit, apply=lambda module, block, state: block(state, rope=module.positions.mean()))
    with torch.no_grad():
        vit.eval()
        state = vit.tokenise(images_of())
        for block in vit.layers:
            state = block(state, rope=vit.positions.mean())[0]
    assert torch.equal(captured(model, images_of()).states[-1], state)


def test_patches_that_are_not_square_are_a_layout():
    class Flat(MyViT):
        def __init__(self):
            super().__init__()
            self.projection = nn.Conv2d(3, 8, (16, 4), (16, 4))

    torch.manual_seed(0)
    layout = TokenLayout({"cls": slice(0, 1), "registers": slice(1, 3), "patches": slice(3, 9)}, (1, 6))
    model = adapted(Flat(), tokens=layout, patch=16)
    assert model.tokens.grid == (1, 6)
    assert model(images_of()).shape == (4, 9, 8)


def test_no_cls_no_norm_and_an_order_of_ones_own():
    vit = my_vit()
    last = TokenLayout({"patches": slice(0, 6), "cls": slice(6, 7)}, (2, 3))

    def behind(module, images):
        return module.tokenise(images)[:, [*range(3, 9), 0]]

    model = adapted(vit, embed=behind, tokens=last, norm=None)
    state = captured(model, images_of()).states[0]
    assert torch.equal(state[:, model.tokens["cls"]][:, 0], vit.cls[0].detach().expand(4, -1))
    assert torch.equal(model(images_of()), captured(model, images_of()).states[-1])
    assert model.tokens.readouts == ("cls", "patches")
    bare = adapted(vit, embed=lambda module, images: module.tokenise(images)[:, 3:], tokens={})
    assert bare.tokens.readouts == ("patches",)


@pytest.mark.parametrize("answer", ["CLS", "patches"])
def test_an_answer_is_a_group_besides_the_patches(answer):
    groups = {"storage": slice(0, 2), "patches": slice(2, 8), "cls": slice(8, 9)}
    with pytest.raises(UsageError, match=rf"answer='{answer}' .*besides the patches \(storage, cls\)"):
        TokenLayout(groups, (2, 3), answer=answer)
    assert TokenLayout(groups, (2, 3)).readouts == ("cls", "patches")
    assert TokenLayout(groups, (2, 3), answer="storage").readouts == ("storage", "patches")


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        ({"patches": slice(0, 6), "cls": (6, 7)}, "`groups['cls']=(6, 7)` is not a slice"),
        ({"cls": slice(0, 1), "patches": slice(1, None)}, "patches=slice(1, None, None) .* tokens from 1 on"),
        ({"cls": slice(0, 1), "patches": slice(1, 7, 2)}, "patches=slice(1, 7, 2) .* tokens from 1 on"),
        ({"cls": slice(0, 0), "patches": slice(0, 6)}, "cls=slice(0, 0, None) .* tokens from 0 on"),
        ({"cls": slice(1, 2), "patches": slice(2, 8)}, "cls=slice(1, 2, None) .* tokens from 0 on"),
        ({"cls": slice(0, 1), "patches": slice(2, 8)}, "patches=slice(2, 8, None) .* tokens from 1 on"),
        ({"cls": slice(0, 2), "patches": slice(1, 7)}, "patches=slice(1, 7, None) .* tokens from 2 on"),
        ({"patches": slice(0, 6.0)}, "patches=slice(0, 6.0, None)"),
        ({"all": slice(0, 1), "patches": slice(1, 7)}, "'all' cannot be the name of a token group"),
        ({"head": slice(0, 1), "patches": slice(1, 7)}, "'head' cannot be the name"),
        ({"cls+reg": slice(0, 1), "patches": slice(1, 7)}, "'cls+reg' cannot be the name"),
        ({3: slice(0, 1), "patches": slice(1, 7)}, "3 cannot be the name"),
        ({}, "has no groups; give"),
    ],
)
def test_groups_of_a_layout_have_names_and_follow_each_other(groups, words):
    with pytest.raises(UsageError, match=words.translate({ord(one): f"\\{one}" for one in "()[]+"})):
        TokenLayout(groups, (2, 3))


def test_a_layout_is_of_whole_numbers_however_they_are_given():
    found = TokenLayout({"patches": slice(np.int64(6)), "cls": slice(6, np.int64(7), 1)}, [np.int64(2), 3])
    assert found == TokenLayout({"patches": slice(0, 6), "cls": slice(6, 7)}, (2, 3))
    assert [type(one) for one in (*found.grid, *found.sizes().values())] == [int] * 4
    assert adapted(embed=lambda module, images: module.tokenise(images)[:, 2:], tokens=found).tokens == found
    for grid, words in ((6, "not a list"), ((2, 3.0), "not a whole number"), ((2, 0), "each at least 1")):
        with pytest.raises(UsageError, match=words):
            TokenLayout({"patches": slice(6)}, grid)


def test_heads_are_asked_of_the_block_and_guessed_only_with_a_note():
    vit = my_vit()
    for layer in vit.layers:
        del layer.heads
    info = adapted(vit).info
    assert info.heads == 1
    assert "heads not known" in info.notes[0]
    assert adapted(vit, heads=4).info.heads == 4


def test_a_module_that_is_random_in_eval_mode_is_said_to_be():
    class Noisy(Block):
        def forward(self, state):
            return super().forward(functional.dropout(state, 0.5))

    assert "random in eval mode" in adapted(my_vit(block=Noisy)).info.notes[0]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"tokens": {"cls": 1}}, ("embed", "(2, 9, 8)", "(2, 7, D)", "1 cls, 6 patches")),
        ({"embed": lambda module, images: module.projection(images)}, ("embed", "(2, 8, 2, 3)")),
        ({"embed": lambda module, images: (module.tokenise(images), 1)}, ("embed", "of type tuple")),
        ({"embed": lambda module, images: module.nowhere}, ("embed", "AttributeError", "nowhere")),
        ({"norm": nn.Linear(8, 4)}, ("norm", "(2, 9, 4)", "(2, 9, 8)")),
        ({"norm": lambda state: state}, ("norm", "of type function")),
        ({"blocks": [Block(8), nn.Linear(8, 5)]}, ("block 2", "(2, 9, 5)")),
        ({"blocks": [Block(12)]}, ("block 1", "fails", "RuntimeError")),
        ({"blocks": []}, ("blocks", "not a sequence of modules")),
        ({"blocks": nn.LayerNorm(8)}, ("blocks", "not a sequence of modules")),
        ({"head": lambda module, normed: normed}, ("head", "(2, 9, 8)", "(B, classes)")),
        ({"tokens": ("cls",)}, ("tokens", "of type tuple")),
        ({"tokens": {"all": 1}}, ("'all'", "cls or registers")),
        ({"tokens": {"patches": 6}}, ("names the patches", "leave them out")),
        ({"tokens": {"cls": -1}}, ("-1", "not a number of tokens")),
        ({"heads": 0}, ("width 8", "among 0 heads")),
        ({"heads": -2}, ("width 8", "among -2 heads")),
        ({"heads": 5}, ("width 8", "among 5 heads")),
        ({"heads": "4"}, ("heads='4'", "not a whole number")),
        ({"heads": True}, ("heads=True", "not a whole number")),
        ({"class_names": ["cat"]}, ("1 class name for 'MyViT'", "no head")),
        (
            {"class_names": ["cat", "dog"], "head": lambda module, normed: module.head(normed[:, 0])},
            ("2 class names for 'MyViT'", "a head of 3 classes"),
        ),
        ({"tokens": TokenLayout({"patches": slice(0, 5)}, (2, 3))}, ("2x3 patches", "{'patches': 5}")),
        ({"patch": (8, 16)}, ("patch=(8, 16)", "one whole number", "TokenLayout")),
        ({"image_size": None}, ("image_size=None", "(height, width)")),
        ({"image_size": (16, 20)}, ("16x20", "8-pixel patch")),
        ({"std": (1, 1, 0)}, ("std=(1, 1, 0)", "above 0")),
        ({"mean": (float("nan"),) * 3}, ("mean=(nan, nan, nan)",)),
        ({"interpolation": "best"}, ("preprocessing", "best")),
        ({"crop": 1}, ("preprocessing", "crop")),
    ],
)
def test_each_mistake_has_one_clear_error(changed, words):
    with pytest.raises(brdyn.UsageError) as caught:
        adapted(**changed)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_functions_that_reach_past_the_copy_are_refused():
    vit = my_vit()
    with pytest.raises(brdyn.UsageError, match="embed of 'MyViT' uses your module itself"):
        adapted(vit, embed=lambda module, images: vit.tokenise(images))
    with pytest.raises(brdyn.UsageError, match="block 1 of 'MyViT' uses your module itself"):
        adapted(vit, apply=lambda module, block, state: vit.layers[0](state))


def test_functions_that_use_parameters_past_the_copy_are_refused():
    """Of a function that gets the copy and takes some of the original as well, outputs would change with that."""
    vit = my_vit()
    vit.register_buffer("scale", torch.ones(()))
    view = vit.positions[:, :1].detach()
    uses = {
        "embed": [
            lambda module, images: module.tokenise(images) + vit.cls,
            lambda module, images: torch.cat([vit.cls.expand(len(images), -1, -1), module.tokenise(images)[:, 1:]], 1),
            torch.no_grad()(lambda module, images: module.tokenise(images) * vit.scale),
            lambda module, images: module.tokenise(images) + view,
        ],
        "block 1": [lambda module, block, state: block(state, vit.cls.mean())],
        "head": [lambda module, normed: normed[:, 0] @ vit.head.weight.T],
    }
    for part, functions in uses.items():
        for function in functions:
            with pytest.raises(brdyn.UsageError, match=f"{part} of 'MyViT' uses your module itself"):
                adapted(vit, **{"apply" if part == "block 1" else part: function})
    assert all(parameter.requires_grad for parameter in vit.parameters())
    shape = adapted(vit, embed=lambda module, images: module.tokenise(images).reshape(-1, 9, vit.cls.shape[-1]))
    assert torch.equal(shape(images_of()), adapted(vit)(images_of()))


def test_parameters_that_a_copy_has_in_common_with_its_original_may_be_used():
    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("table", torch.ones(8))

        def __deepcopy__(self, memo):
            return self

        def forward(self, state):
            return state + self.table

    vit = my_vit()
    vit.fixed = Fixed()
    model = adapted(vit, embed=lambda module, images: module.fixed(module.tokenise(images)))
    assert model.tokens.count == 9


@pytest.mark.parametrize("built_inside", [False, True])
def test_a_module_is_adapted_in_inference_mode_too(built_inside):
    vit = None if built_inside else my_vit()
    with torch.inference_mode():
        model = adapted(vit)
    assert model.info == adapted().info
    assert torch.equal(model(images_of()), adapted()(images_of()))
    assert not any(one.is_inference() for one in model.parameters())
    model.requires_grad_(True)(images_of()).sum().backward()


def test_load_model_takes_a_module_that_has_the_parts_and_shows_how_where_it_has_not():
    class Ready(MyViT):
        tokens, image_size, patch = {"cls": 1, "registers": 2}, (16, 24), 8
        mean = std = (0.5, 0.5, 0.5)
        embed = MyViT.tokenise

        def __init__(self):
            super().__init__()
            self.blocks, self.norm = self.layers, self.ln

    torch.manual_seed(0)
    ready = Ready()
    model = brdyn.load_model(ready)
    with torch.no_grad():
        assert torch.equal(model(images_of()), ready.eval().states(images_of())[1])
    half = brdyn.load_model(adapted(), dtype=torch.bfloat16)
    assert half.precision == "bfloat16"
    assert adapted(my_vit().double()).precision == "float64"
    for wrong in (my_vit(), MyViT, None, 3):
        with pytest.raises(brdyn.UsageError, match=r"adapt a module: brdyn\.adapt\(module, embed="):
            brdyn.load_model(wrong)
    with pytest.raises(brdyn.UsageError, match="image_size, init: a module that is given"):
        brdyn.load_model(adapted(), image_size=32, init="random")


def test_a_model_that_is_given_stays_as_it_is():
    own = adapted()
    assert brdyn.load_model(own) is own
    assert brdyn.load_model(own, device="cpu", dtype="float32") is own
    double = brdyn.load_model(own, dtype="float64")
    assert (own.dtype, double.dtype) == (torch.float32, torch.float64)
    assert double(images_of().double()).dtype == torch.float64
    own.requires_grad_(True)
    assert not any(one.requires_grad for one in brdyn.load_model(own).parameters())
    assert all(one.requires_grad for one in own.parameters())


def test_sizes_of_numpy_are_sizes():
    own = adapted(image_size=np.array([16, 24]), patch=np.int64(8), tokens={"cls": np.int64(1), "registers": 2})
    assert own.info == adapted().info
    assert own.tokens == adapted().tokens
    for wrong in ({"image_size": 16.0}, {"image_size": (16, 0)}, {"patch": 8.0}, {"patch": True}):
        with pytest.raises(UsageError):
            adapted(**wrong)


@pytest.fixture
def own_images(noise_folder):
    return brdyn.load_images(noise_folder, adapted(), n=12)


def test_similarity_is_that_of_a_hand_computation(own_images):
    vit, model = my_vit(), adapted()
    similarity = brdyn.layer_similarity(model, own_images, replicates=0, stream=Stream(workers=0))
    images = torch.cat([batch.images for batch in own_images.batches(12, workers=0)])
    with torch.no_grad():
        states = torch.stack(vit.eval().states(images)[0][1:])
    expected = np.zeros((3, 3))
    for tokens in (states[:, :, 0], states[:, :, 3:].mean(2)):
        unit = tokens / tokens.norm(dim=-1, keepdim=True)
        expected += torch.einsum("lbd,mbd->lm", unit, unit).numpy() / 12 / 2
    assert similarity.matrix == pytest.approx(expected, abs=1e-6)


def test_every_public_function_takes_it(own_images, little_cifar):
    from brdyn.probes import extract_features, probe

    model = adapted(head=lambda module, normed: module.head(normed[:, 0]))
    options = {"stream": Stream(workers=0), "seed": 0}
    similarity = brdyn.layer_similarity(model, own_images, **options)
    phases = brdyn.segment(similarity, 2)
    dynamics = brdyn.token_dynamics(model, own_images, phases, **options)
    states = captured(model, torch.cat([batch.images for batch in own_images.batches(12, workers=0)])).states
    norms = torch.stack([state[:, 0].norm(dim=-1).mean() for state in states])
    assert dynamics.curve("norm", "cls") == pytest.approx(norms.numpy(), rel=1e-5)
    repair = brdyn.perturbation_repair(model, own_images, eps=[0.0, 0.1], targets=["cls"], **options)
    assert repair.final("cls", "cls", 0.0) == pytest.approx(np.zeros(4), abs=1e-3)
    assert (repair.final("cls", "cls", 0.1) > 0).all()
    surgery = brdyn.layer_surgery(model, own_images, phases, kinds=["swap"], **options)
    with torch.no_grad(), swap(model, 1, 3):
        swapped = model(torch.cat([batch.images for batch in own_images.batches(12, workers=0)]))[:, 0]
    clean = model.norm(states[-1])[:, 0]
    error = ((swapped - clean).norm(dim=-1) / clean.norm(dim=-1)).mean()
    assert surgery.matrix("swap", "cls")[0, 2] == pytest.approx(float(error), rel=1e-4)
    train, test = (
        extract_features(model, brdyn.load_images(little_cifar[part], model), stream=Stream(workers=0))
        for part in ("train", "test")
    )
    assert probe(train, test, seeds=1).classes == 10


def test_a_raptor_of_it_is_fitted_saved_and_read_back_with_its_teacher(own_images, tmp_path):
    from dataclasses import replace

    model = adapted()
    settings = replace(FitSettings(), stage1_steps=1, stage2_steps=1, batch_size=4, validation_images=4)
    raptor = brdyn.fit_raptor(model, own_images, [0, 0, 1], settings, workers=0).raptor
    raptor.save_pretrained(tmp_path / "raptor")
    assert raptor.shared[0].config.heads == 2
    with pytest.raises(brdyn.UsageError) as caught:
        brdyn.load_model(str(tmp_path / "raptor"))
    for word in ("'MyViT'", "teacher=module", "`teacher=file.py:function`", "`allow_code=True`"):
        assert word in str(caught.value)
    again = brdyn.load_model(str(tmp_path / "raptor"), teacher=adapted())
    with torch.no_grad():
        assert torch.equal(again(images_of()), raptor(images_of()))
    with pytest.raises(brdyn.UsageError, match="was fitted to 'MyViT' with weights"):
        brdyn.load_model(tmp_path / "raptor", teacher=adapted(my_vit(seed=3)))
    with pytest.raises(brdyn.UsageError, match="the teacher is of type MyViT"):
        brdyn.load_model(tmp_path / "raptor", teacher=my_vit())
    with pytest.raises(brdyn.UsageError, match="no fitted Raptor"):
        brdyn.load_model("vit_tiny_patch16_224", init="random", teacher=adapted())


@needs_offline
def test_the_guides_example_runs():
    page = (Path(__file__).parents[2] / "docs" / "guide" / "own_model.md").read_text()
    example = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert len(example) == 1
    names = {"__name__": "guide"}
    exec(example[0], names)
    assert names["model"].tokens.sizes() == {"cls": 1, "patches": 16}
    images = torch.randn(2, 3, 64, 64)
    my_vit = names["my_vit"].eval()
    with torch.no_grad():
        state = my_vit.tokens(images)
        for layer in my_vit.layers:
            state = layer(state)
        assert torch.allclose(names["model"](images), my_vit.ln(state), atol=1e-6)
    assert names["phases"].layers == 4
