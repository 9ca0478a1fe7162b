"""Public functions that are called with what they cannot take say so in one line, before any image is read."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import brdyn
from brdyn import classifiers, data, interventions, measures, phases, probes, raptor
from brdyn.errors import UsageError
from tests.conftest import tiny_vit

EYE, NAN = np.eye(4), float("nan")
SIMILARITY = brdyn.LayerSimilarity("cosine", "cls", EYE, EYE[None], "image", 3)


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """A small model and images of two classes that cannot be read: what is wrong is told before."""
    folder = tmp_path_factory.mktemp("unread")
    for name in ("cat", "dog"):
        (folder / name).mkdir()
        for number in range(5):
            (folder / name / f"{number}.png").write_bytes(b"nothing")
    model = tiny_vit()
    return model, brdyn.load_images(folder, model)


FEATURES = probes.Features(torch.eye(2).repeat(5, 1), torch.tensor([0, 1] * 5))
CALLS = {
    "a name in the place of a model": (
        lambda model, images: brdyn.layer_similarity("dinov2_vits14", images),
        "`model='dinov2_vits14'` is not a loaded model; give what `brdyn.load_model` or `brdyn.adapt` returns",
    ),
    "a folder in the place of images": (
        lambda model, images: brdyn.token_dynamics(model, "photos"),
        "`images='photos'` is not a set of images; give what `brdyn.load_images` returns",
    ),
    "images for no model": (
        lambda model, images: brdyn.load_images("photos", "dinov2_vits14"),
        "`model='dinov2_vits14'` is not a loaded model",
    ),
    "targets for no model": (
        lambda model, images: data.load_dense("photos", 3, "segmentation"),
        "`model=3` is not a loaded model",
    ),
    "the wrong order of arguments": (
        lambda model, images: brdyn.layer_similarity(images, model),
        "is not a loaded model",
    ),
    "no such kind of targets": (
        lambda model, images: data.find_source("photos", target="x"),
        "unknown target 'x'; choose one of mask, depth",
    ),
    "tokens by number": (
        lambda model, images: brdyn.layer_similarity(model, images, tokens=3),
        "`tokens=3` is not a text",
    ),
    "no tokens": (
        lambda model, images: brdyn.layer_similarity(model, images, tokens=[]),
        "`tokens` names no group; choose from cls, registers, patches, all",
    ),
    "phases as a text": (
        lambda model, images: brdyn.token_dynamics(model, images, "4,8"),
        "`phases='4,8'` is not phases; give what `brdyn.segment` returns, or boundaries such as [4, 8]",
    ),
    "boundaries beyond the model": (
        lambda model, images: brdyn.layer_surgery(model, images, [3, 7]),
        "boundaries 3, 7 do not increase from 1 to 3; each is the last layer of a phase",
    ),
    "boundaries and another k": (
        lambda model, images: brdyn.perturbation_repair(model, images, [2], k=3),
        "`k=3` and boundaries of 2 phases exclude each other; drop one of them",
    ),
    "an assignment that leaps": (
        lambda model, images: brdyn.splice_skill(model, images, [0, 1, 0, 1]),
        "the assignment [0, 1, 0, 1] does not cut 4 layers into phases of neighbours; give the last layer of each",
    ),
    "phases of another depth": (
        lambda model, images: brdyn.probe_layers(model, images, phases=brdyn.segment(np.eye(3))),
        "the phases are of 3 layers, and 'tiny_vit' has 4; find those of this model by `brdyn.segment`",
    ),
    "a Raptor by halves": (
        lambda model, images: brdyn.fit_raptor(model, images, [1.5]),
        "`phases[0]=1.5` is not a whole number",
    ),
    "ranks of a text": (
        lambda model, images: brdyn.raptor_ranks(model, images, {"one": "0000"}, [0]),
        "`partitions['one']='0000'` is not phases",
    ),
    "layers by halves": (
        lambda model, images: brdyn.probe_layers(model, images, layers=[3, 1.5]),
        "`layers[1]=1.5` is not a whole number",
    ),
    "measures that are left out": (
        lambda model, images: brdyn.token_dynamics(model, images, measures=["norm"], leave_out=["norm"]),
        "`leave_out` names all of the `measures`; leave out fewer",
    ),
    "no ridge": (
        lambda model, images: brdyn.splice_skill(model, images, ridge=None),
        "`ridge=None` is not a number",
    ),
    "something as a Raptor": (
        lambda model, images: brdyn.splice_skill(model, images, raptor="runs/one"),
        "`raptor='runs/one'` is not a Raptor; give what `brdyn.load_model` returns for its folder",
    ),
    "a twin": (
        lambda model, images: brdyn.with_null(brdyn.token_dynamics, model, images, twins=None),
        "`twins=None` is not a collection of models; give what `brdyn.untrained_twins` returns",
    ),
    "a seed below 0": (
        lambda model, images: probes.read_classes(FEATURES, FEATURES, seed=-1),
        "seed -1 is not a whole number from 0 to 2^63 - 1",
    ),
    "workers below 0": (
        lambda model, images: list(images.batches(2, workers=-1)),
        "`workers=-1` is less than 0; give 0 or more",
    ),
    "a layer by name": (
        lambda model, images: interventions.swap(model, "first", 2),
        "`first='first'` is not a whole number",
    ),
    "an eps that is a text": (
        lambda model, images: brdyn.segment(EYE, eps="x"),
        "`eps='x'` is not a number; give one such as 0.1",
    ),
    "several alphas": (
        lambda model, images: brdyn.segment(EYE, alpha=[0.05]),
        "`alpha=[0.05]` is not a number",
    ),
    "no gain": (lambda model, images: brdyn.segment(EYE, min_gain=None), "`min_gain=None` is not a number"),
    "a matrix of words": (
        lambda model, images: brdyn.segment(np.full((3, 3), "a")),
        "the similarity holds values of kind <U1; give an array of real numbers",
    ),
    "a complex matrix": (
        lambda model, images: phases.best_segmentations(EYE * 1j),
        "the dissimilarity holds values of kind complex128; give an array of real numbers",
    ),
    "a matrix that is not square": (
        lambda model, images: phases.phase_evidence(np.eye(4)[:3]),
        "the dissimilarity of shape (3, 4) is not a square matrix of layers; give (L, L)",
    ),
    "one replicate": (
        lambda model, images: phases.boundary_frequency(EYE),
        "the bootstrap replicates of shape (4, 4) is not a square matrix of layers; give (R, L, L)",
    ),
    "a matrix with a hole": (
        lambda model, images: phases.layer_steps(np.full((4, 4), NAN)),
        "the dissimilarity has values that are not finite; leave out what has them",
    ),
    "replicates of another model": (
        lambda model, images: brdyn.segment(replace(SIMILARITY, replicates=np.eye(3)[None])),
        "the bootstrap replicates are of 3 layers, and the similarity of 4; give those of the same model, or none",
    ),
    "replicates with a hole": (
        lambda model, images: brdyn.segment(replace(SIMILARITY, replicates=np.full((2, 4, 4), NAN))),
        "the bootstrap replicates has values that are not finite",
    ),
    "harm of nothing": (
        lambda model, images: interventions.within_against_across(np.full((2, 2), "a"), [1]),
        "the harm of exchanges holds values of kind <U1",
    ),
    "boundaries of harm": (
        lambda model, images: interventions.within_against_across(EYE, [9]),
        "boundaries 9 do not increase from 1 to 3",
    ),
    "features of another width": (
        lambda model, images: probes.nearest_neighbours(FEATURES, torch.zeros(3, 5)),
        "features of shape (3, 5) are not read as those of 2 in training; give (m, 2)",
    ),
    "labels of other features": (
        lambda model, images: probes.Features(torch.zeros(3, 2), torch.zeros(2)),
        "features of shape (3, 2) and labels of shape (2,) do not go together; give (n, F) and (n,)",
    ),
    "no penalty": (
        lambda model, images: probes.fit_linear(FEATURES, FEATURES, penalties=[]),
        "there are no penalties to choose from; give one such as [1.0]",
    ),
    "no such device": (
        lambda model, images: probes.read_classes(FEATURES, FEATURES, device="gpu"),
        "device 'gpu' is unknown or not on this machine",
    ),
    "no neighbour": (
        lambda model, images: probes.nearest_neighbours(FEATURES, FEATURES.values, neighbours=0),
        "`neighbours=0` is less than 1; give 1 or more",
    ),
    "readings of nothing": (lambda model, images: probes.compare({}), "there is nothing to compare"),
    "features of two models": (
        lambda model, images: probes.probe({"a": FEATURES}, {"b": FEATURES}),
        "features to fit are of a, and to test of b; give both of each model",
    ),
    "steps as a text": (
        lambda model, images: raptor.FitSettings(stage1_steps="many"),
        "`stage1_steps='many'` is not a whole number",
    ),
    "an assignment of nothing": (
        lambda model, images: raptor.Raptor(model, "0011", raptor.CopyConfig(width=16, heads=2)),
        "`assignment='0011'` is not a list",
    ),
    "a classifier's width": (
        lambda model, images: classifiers.ViTRMConfig(width=None),
        "`width=None` is not a whole number",
    ),
    "labels of other pixels": (
        lambda model, images: classifiers.PixelSet(torch.zeros(3, 3, 8, 8), torch.zeros(2), ("a",), "x"),
        "3 images and 2 labels do not go together; give one label for each",
    ),
    "a measure that is a text": (
        lambda model, images: measures.measure(model, images, {"cosine": "cosine"}),
        "`metrics['cosine']='cosine'` is not a Metric",
    ),
    "a batch of none": (
        lambda model, images: list(images.batches(0)),
        "`batch_size=0` is less than 1; give 1 or more",
    ),
    "images kept out below 0": (
        lambda model, images: images.split(-1, 0),
        "`count=-1` is less than 0; give 0 or more",
    ),
    "a seed of a split": (
        lambda model, images: images.some(2, -1),
        "seed -1 is not a whole number from 0 to 2^63 - 1",
    ),
    "places by name": (
        lambda model, images: images.take("first"),
        "`places='first'` is not a list; give one such as [1, 2]",
    ),
    "a measure of no layout": (
        lambda model, images: measures.CosineSimilarity(None, 4),
        "`layout=None` is not a TokenLayout",
    ),
    "a measure of no layer": (
        lambda model, images: measures.CosineSimilarity(model.tokens, 0),
        "`depth=0` is less than 1; give 1 or more",
    ),
    "no edge of pixels": (
        lambda model, images: classifiers.load_pixels("photos", 0),
        "`image_size=0` is less than 1; give 1 or more",
    ),
    "no bins": (lambda model, images: probes.Depth(10, bins=0), "`bins=0` is less than 1; give 1 or more"),
    "no segmentations": (
        lambda model, images: phases.k_best_segmentations(EYE, count=0),
        "`count=0` is less than 1; give 1 or more",
    ),
    "a phase of no layer": (
        lambda model, images: phases.random_moments(EYE, 0),
        "min_size=0: a phase has at least one layer",
    ),
    "a set of weights drawn nowhere": (
        lambda model, images: brdyn.load_model("vit_tiny_patch16_224", init=EYE),
        "unknown init ndarray(4, 4); choose one of pretrained, random",
    ),
    "a seed of many numbers": (
        lambda model, images: brdyn.load_model("vit_tiny_patch16_224", init="random", seed=EYE),
        "seed ndarray(4, 4) is not a whole number from 0 to 2^63 - 1",
    ),
    "classes of no head": (
        lambda model, images: brdyn.adapt(
            torch.nn.Linear(1, 1),
            embed=len,
            blocks=[],
            norm=None,
            tokens={},
            image_size=32,
            patch=16,
            mean=[0.5] * 3,
            std=[0.5] * 3,
            class_names=None,
        ),
        "`class_names=None` is not a list; give several",
    ),
    "results by number": (lambda model, images: brdyn.compare(1, 2), "`results[0]=1` is not a path"),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_call_that_cannot_be_served_says_so_in_one_line(name, given):
    call, said = CALLS[name]
    with pytest.raises(UsageError) as told:
        call(*given)
    assert said in str(told.value)
    assert "\n" not in str(told.value)
