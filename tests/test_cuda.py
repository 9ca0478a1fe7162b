"""On a GPU: the numbers of the CPU."""

import numpy as np
import pytest
import torch

from brdyn.data import load_images
from brdyn.measures import SIMILARITIES, layer_similarity
from brdyn.phases import segment
from brdyn.trajectory import Stream

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.parametrize("kind", SIMILARITIES)
def test_similarity_equals_the_cpu(kind, tiny, noise_folder):
    images = load_images(noise_folder, tiny)
    here = layer_similarity(tiny, images, kind, stream=Stream(workers=0))
    there = layer_similarity(tiny.to("cuda"), images, kind, stream=Stream(workers=0))
    np.testing.assert_allclose(here.matrix, there.matrix, atol=1e-3)


def test_bfloat16_keeps_the_boundaries(tiny, noise_folder):
    images = load_images(noise_folder, tiny)
    full = segment(layer_similarity(tiny.to("cuda"), images, stream=Stream(workers=0)), k=2)
    half = segment(layer_similarity(tiny.to("cuda", torch.bfloat16), images, stream=Stream(workers=0)), k=2)
    assert full.boundaries == half.boundaries
