"""The offline model against the package's own graph, run by onnxruntime."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from brdyn.models import load_model
from brdyn.models.imgfocus import LAYERS, onnx_path
from tests.conftest import needs_offline

pytestmark = needs_offline


@pytest.fixture(scope="module")
def graph_outputs(images_module):
    graph = onnx.load(str(onnx_path()))
    names = [f"/backbone/encoder/layer.{layer}/Add_1_output_0" for layer in range(LAYERS)]
    names.append("/backbone/layernorm/Add_1_output_0")
    graph.graph.output.extend(onnx.helper.make_tensor_value_info(name, 1, None) for name in names)
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(names, {"input_image": images_module.numpy()})


@pytest.fixture(scope="module")
def images_module():
    return torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(1))


def test_every_block_and_the_normed_output_equal_the_graph(imgfocus, images_module, graph_outputs):
    state = imgfocus.embed(images_module)
    for block, expected in zip(imgfocus.blocks, graph_outputs[:-1], strict=True):
        state = block(state)
        np.testing.assert_allclose(state.numpy(), expected, atol=1e-4, rtol=1e-4)
    np.testing.assert_allclose(imgfocus.norm(state).numpy(), graph_outputs[-1], atol=1e-4)


def test_layout_and_provenance(imgfocus):
    assert imgfocus.tokens.sizes() == {"cls": 1, "patches": 256}
    assert imgfocus.info.layers == imgfocus.depth == 12
    assert "not DINOv2" in imgfocus.info.notes[0]
    assert "no antialias" in imgfocus.info.position_rule


def test_random_twin_differs_by_seed_and_is_marked():
    twins = [load_model("imgfocus_vits14", init="random", seed=seed, image_size=28) for seed in (0, 0, 1)]
    first, again, other = (twin.blocks[0].attn.qkv.weight for twin in twins)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert twins[0].info.is_random
    assert twins[0].info.weights == "random (untrained, seed 0)"
    assert float(twins[0].blocks[3].ls1.gamma.mean()) == 1.0  # blocks that are not near-identities
