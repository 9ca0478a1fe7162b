"""Blocks that layers share from the start of training: one module, one set of weights, at every layer."""

import hashlib
import json

import pytest
import torch
from safetensors.torch import load_file, save

import brdyn
from brdyn.classifiers import Classifier, train_classifier
from brdyn.classifiers.architectures import build
from brdyn.data import Batch
from brdyn.errors import UsageError
from brdyn.store import pretrained
from brdyn.training import Checkpoints, Session, TrainSettings
from brdyn.training.optimization import Optimization
from tests.classifiers.small import Killed, new, pictures, recipe
from tests.conftest import scramble

SIZES = {"patch": 4, "width": 12, "heads": 2, "hidden": 16}
NAME = "vit-tiny12"


def vit(**options):
    return build(NAME, 3, 8, **SIZES, **options)


def block_parameters(network):
    return sum(parameter.numel() for parameter in network.blocks.parameters())


@pytest.mark.parametrize(
    ("options", "assignment"),
    [
        ({"shared_blocks": 1}, [0, 0, 0, 0]),
        ({"shared_blocks": 2}, [0, 0, 1, 1]),
        ({"shared_blocks": 2, "partition": "cycle"}, [0, 1, 0, 1]),
        ({"partition": "0,1,1,0"}, [0, 1, 1, 0]),
        ({"shared_blocks": 4}, [0, 1, 2, 3]),
        ({}, [0, 1, 2, 3]),
    ],
)
def test_layers_share_what_they_are_asked_to(options, assignment):
    network = vit(depth=4, **options)
    one = block_parameters(vit(depth=1))
    assert block_parameters(network) == (max(assignment) + 1) * one
    for layer, number in enumerate(assignment):
        for other, another in enumerate(assignment):
            assert (network.blocks[layer] is network.blocks[other]) == (number == another)


def test_with_as_many_blocks_as_layers_it_is_the_plain_one():
    torch.manual_seed(0)
    plain = vit(depth=4)
    torch.manual_seed(0)
    shared = vit(depth=4, shared_blocks=4)
    images = torch.randn(2, 3, 8, 8)
    assert torch.equal(plain.eval()(images), shared.eval()(images))


def test_one_block_four_times_is_that_block_applied_four_times():
    network = vit(depth=4, shared_blocks=1).eval()
    state = torch.randn(2, 5, 12)
    expected = state
    for _ in range(4):
        expected = network.blocks[0](expected)
    assert torch.equal(network.blocks(state), expected)


def test_it_trains_resumes_and_comes_back(tmp_path):
    """The gradient is that of all its layers; checkpoints and the file on disk hold what is shared once."""
    options = {"depth": 4, "shared_blocks": 2, "drop_path": 0.2}
    expected = new(NAME, **options)
    train_classifier(expected, pictures(), recipe(ema=0.9))
    checkpoints, killed = Checkpoints(tmp_path, {}), new(NAME, **options)

    def kill(_, step, __):
        if step == 9:
            raise Killed

    session = Session(checkpoints=checkpoints, report=kill)
    with pytest.raises(Killed):
        train_classifier(killed, pictures(), recipe(ema=0.9), session=session)
    resumed = new(NAME, **options)
    train_classifier(resumed, pictures(), recipe(ema=0.9), session=Session(resume=checkpoints.latest()))
    for first, second in zip(expected.network.parameters(), resumed.network.parameters(), strict=True):
        assert torch.equal(first, second)
    assert resumed.network.blocks[0] is resumed.network.blocks[1]
    resumed.save_pretrained(tmp_path / "run")
    once = load_file(tmp_path / "run" / "model.safetensors")
    assert sum(tensor.numel() for tensor in once.values()) == resumed.parameters
    kept = {name for name in checkpoints.latest().tensors if ".blocks." in name}
    assert kept
    assert not any(f".blocks.{layer}." in name for name in kept for layer in (1, 3))
    again = Classifier.from_pretrained(tmp_path / "run")
    images = torch.randn(2, 3, 8, 8)
    assert torch.equal(again.network.eval()(images), resumed.network.eval()(images))
    assert again.network.blocks[2] is again.network.blocks[3]
    model = brdyn.load_model(str(tmp_path / "run"))
    assert model.depth == 4
    assert model.block_parameters == block_parameters(again.network)
    state, states = model.embed(images), []
    for block in model.blocks:
        state = block(state)
        states.append(state)
    found = brdyn.capture(model, Batch(torch.cat([images, images]), torch.arange(4))).states
    assert len(found) == 5
    for one, other in zip(found[1:], states, strict=True):
        torch.testing.assert_close(one[:2], other)
    others = sum(p.numel() for p in again.network.parameters()) - sum(
        p.numel() for p in again.network.head.parameters()
    )
    assert model.info.parameters == others
    content = json.loads((tmp_path / "run" / "config.json").read_text())
    assert content["options"]["shared_blocks"] == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shared_blocks": 3}, "3 shared blocks do not divide 4 layers, as the partition 'sequence' needs"),
        ({"shared_blocks": 3, "partition": "cycle"}, "3 shared blocks do not divide 4 layers"),
        ({"shared_blocks": 5}, "5 shared blocks for 4 layers: there are 1 to 4"),
        ({"partition": "0,0,1"}, "is of 3 layers, and the network has 4; give the block of each"),
        ({"partition": "0,2,2,0"}, "does not number its blocks 0, 1, …; leave no number out"),
        ({"partition": "0,0,1,1", "shared_blocks": 3}, "has 2 blocks, and 3 are asked for; drop either"),
        ({"partition": "halves"}, "neither 'sequence' nor 'cycle' nor the block of each layer"),
        ({"depth_scaling": "layer"}, "unknown depth scaling 'layer'; choose one of index, constant, none"),
        (
            {"shared_blocks": 2, "drop_path": [0, 0.1]},
            r"drop-path \[0, 0.1\] is not one number, the same at every",
        ),
    ],
)
def test_what_cannot_be_shared_so_is_refused(options, message):
    with pytest.raises(UsageError, match=message):
        vit(depth=4, **options)


def scaled(depth_scaling, **options):
    """With factors that are not 1, as they start."""
    network = vit(depth=4, depth_scaling=depth_scaling, **options)
    for block in {id(block.depth): block for block in network.blocks}.values():
        scramble(block.depth, 5)
    return network


@pytest.mark.parametrize("depth_scaling", ["index", "constant"])
def test_a_shared_block_is_scaled_by_its_layer_as_a_raptors_is(depth_scaling):
    """Written out: factors of the layer on what either branch adds, and on what comes out."""
    network = scaled(depth_scaling, shared_blocks=2).eval()
    state = torch.randn(2, 5, 12)
    expected = state
    for layer, block in enumerate(network.blocks, 1):
        index = torch.tensor([float(layer if depth_scaling == "index" else 1)])
        attention, mlp, output = block.depth(index)
        expected = expected + attention * block.attn(block.norm1(expected))
        expected = output * (expected + mlp * block.mlp(block.norm2(expected)))
    assert torch.allclose(network.blocks(state), expected, atol=1e-6)
    whole = block_parameters(network)
    one = block_parameters(vit(depth=1)) + sum(one.numel() for one in network.blocks[0].depth.parameters())
    assert whole == 2 * one
    first, second, third, _ = network.blocks
    assert first.attn is second.attn
    assert first.depth is second.depth
    assert first.attn is not third.attn


def test_depth_scaling_starts_as_none():
    """Weights are drawn as without it, and all factors are 1."""
    torch.manual_seed(0)
    plain = vit(depth=4, shared_blocks=1).eval()
    torch.manual_seed(0)
    network = vit(depth=4, shared_blocks=1, depth_scaling="index").eval()
    images = torch.randn(2, 3, 8, 8)
    assert torch.allclose(plain(images), network(images), atol=1e-6)


def test_a_scaled_network_trains_with_stochastic_depth_and_comes_back(tmp_path):
    options = {"depth": 4, "shared_blocks": 2, "drop_path": 0.2, "depth_scaling": "index"}
    classifier = new(NAME, **options)
    train_classifier(classifier, pictures(), recipe(epochs=1))
    assert classifier.network.blocks[0].depth.factors.weight.abs().max() > 0
    classifier.save_pretrained(tmp_path / "run")
    again = Classifier.from_pretrained(tmp_path / "run").network.eval()
    images = torch.randn(2, 3, 8, 8)
    assert torch.equal(again(images), classifier.network.eval()(images))
    assert [block.layer for block in again.blocks] == [1, 2, 3, 4]
    model = brdyn.load_model(str(tmp_path / "run"))
    assert model.block_parameters == block_parameters(again)
    state = model.embed(images)
    for block in model.blocks:
        state = block(state)
    assert torch.equal(model.logits(model.norm(state)), again(images))


def resnet(seed=0, **options):
    return Classifier.new("resnet18", ("r", "g", "b"), 32, [0.3] * 3, [0.3] * 3, seed, **options)


def test_the_blocks_of_a_resnets_stage_share_their_convolutions():
    """By hand: two convolutions of the first stage, whose blocks are alike, and one of each other are not there twice;
    what halves the image is apart, and so are all normalisations."""
    plain, shared = resnet(), resnet(shared_stages=True)
    saved = sum(9 * width**2 for width in (64, 64, 128, 256, 512))
    assert plain.parameters - shared.parameters == saved
    assert plain.flops() == shared.flops()
    for number in (1, 2, 3, 4):
        first, second = getattr(shared.network, f"layer{number}")
        assert (first.conv1 is second.conv1) == (number == 1)
        assert first.conv2 is second.conv2
        assert first.bn1 is not second.bn1
        assert first.bn2 is not second.bn2


def test_longer_stages_and_bottlenecks_share_all_that_is_alike():
    with torch.device("meta"):
        network = build("resnet50", 3, 32, shared_stages=True)
    first, second, third, *_ = network.layer2
    for name in ("conv1", "conv2", "conv3"):
        assert getattr(second, name) is getattr(third, name)
    assert [getattr(first, name) is getattr(second, name) for name in ("conv1", "conv2", "conv3")] == [
        False, False, True
    ]  # fmt: skip


def test_a_shared_convolution_has_the_gradient_of_all_its_places():
    """As the sum over two copies that begin alike: their normalisations differ from the start."""
    shared, apart = resnet(shared_stages=True).network, resnet().network
    apart.load_state_dict(shared.state_dict())
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for network in (shared, apart):
        network(images).square().sum().backward()
    expected = sum(block.conv2.weight.grad for block in apart.layer3)
    torch.testing.assert_close(shared.layer3[0].conv2.weight.grad, expected, rtol=1e-4, atol=1e-3)


def test_a_resnet_with_shared_stages_is_averaged_goes_on_and_comes_back(tmp_path):
    """From the checkpoint of its one step as it was; what is shared is one again when it is read."""
    once, checkpoints = recipe(epochs=1, checkpoint_every=1, ema=0.5), Checkpoints(tmp_path / "c", {})
    trained, resumed = resnet(shared_stages=True), resnet(shared_stages=True)
    train_classifier(trained, pictures(30), once, session=Session(checkpoints=checkpoints))
    train_classifier(resumed, pictures(30), once, session=Session(resume=checkpoints.latest()))
    resumed.save_pretrained(tmp_path / "run")
    again = Classifier.from_pretrained(tmp_path / "run")
    for name, value in again.network.state_dict().items():
        assert torch.equal(value, trained.network.state_dict()[name])
    assert again.network.layer1[0].conv1 is again.network.layer1[1].conv1
    assert again.options == {"shared_stages": True}


@pytest.mark.parametrize("options", [{"depth": 4, "shared_blocks": 1}, {"depth": 4, "shared_blocks": 2}])
def test_what_layers_share_is_averaged_once_a_step(options):
    """Whatever number of layers it serves."""
    parts = torch.nn.ModuleDict({"network": new(NAME, **options).network})
    optimization = Optimization(parts, TrainSettings(steps=2, batch_size=1, ema=0.9))
    before = {name: value.clone() for name, value in parts.state_dict().items()}
    with torch.no_grad():
        for parameter in parts.parameters():
            parameter.add_(1.0)
    optimization.ema.update(1)
    for name, value in optimization.average.items():
        torch.testing.assert_close(value, before[name] + 0.1)


def test_files_that_hold_what_is_shared_for_every_layer_are_read(tmp_path):
    """As earlier versions wrote them."""
    classifier = new(NAME, depth=4, shared_blocks=2)
    scramble(classifier.network)
    files = classifier.to_files()
    data = save({name: value.clone() for name, value in classifier.network.state_dict().items()})
    config = json.loads(files["config.json"]) | {"digest": hashlib.sha256(data).hexdigest()}
    pretrained.write(tmp_path, {"model.safetensors": data, "config.json": json.dumps(config).encode()})
    assert len(data) > len(files["model.safetensors"])
    again = Classifier.from_pretrained(tmp_path).network.state_dict()
    assert all(torch.equal(value, again[name]) for name, value in classifier.network.state_dict().items())
