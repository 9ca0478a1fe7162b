"""What a command does when not told otherwise is what the library does."""

from inspect import signature
from pathlib import Path

import pytest

from brdyn.classifiers.config import ViTRMConfig
from brdyn.cli.dynamics import dynamics
from brdyn.cli.interventions import interventions
from brdyn.cli.perturb import perturb
from brdyn.cli.phases import phases
from brdyn.cli.probe import probe
from brdyn.cli.run import RunRequest
from brdyn.cli.vit_train import ViTRequest
from brdyn.cli.vitrm_eval import EvalRequest
from brdyn.cli.vitrm_train import vitrm_train
from brdyn.interventions import layer_surgery, perturbation_repair
from brdyn.measures import layer_similarity
from brdyn.measures.dynamics import token_dynamics
from brdyn.phases import segment
from brdyn.probes import probe_images


def default(function, name):
    return signature(function).parameters[name].default


@pytest.mark.parametrize(
    ("command", "option", "function", "parameter"),
    [
        (phases, "similarity", layer_similarity, "kind"),
        (phases, "tokens", layer_similarity, "tokens"),
        (phases, "bootstrap", layer_similarity, "replicates"),
        (phases, "min_size", segment, "min_size"),
        (phases, "min_gain", segment, "min_gain"),
        (phases, "method", segment, "method"),
        (phases, "eps", segment, "eps"),
        (phases, "alpha", segment, "alpha"),
        (phases, "calibration", segment, "calibration"),
        (dynamics, "ridge", token_dynamics, "ridge"),
        (dynamics, "tangents", token_dynamics, "tangents"),
        (dynamics, "krylov_steps", token_dynamics, "krylov_steps"),
        (probe, "seeds", probe_images, "seeds"),
        (interventions, "draws", layer_surgery, "draws"),
    ],
)
def test_an_option_has_the_default_of_its_parameter(command, option, function, parameter):
    assert default(command, option) == default(function, parameter)


def test_options_that_are_written_out_have_the_default_of_their_parameter():
    assert default(interventions, "kinds").split(",") == list(default(layer_surgery, "kinds"))
    sizes = [float(size) for size in default(perturb, "eps").split(",")]
    assert sizes == list(default(perturbation_repair, "eps"))
    assert default(vitrm_train, "latent_steps") == ViTRMConfig.latent_steps


@pytest.mark.parametrize(("request_of", "given"), [(RunRequest, {}), (ViTRequest, {}), (EvalRequest, {"run": "x"})])
def test_images_are_read_as_typed(request_of, given):
    typed = {"n": 3, "seed": 5, "split": "val", "image_column": "picture", "label_column": "kind"}
    request = request_of(out=Path("out"), **given, **typed)
    assert request.images_options() == typed
    assert request.images_options(n=2, split=None) == {**typed, "n": 2, "split": None}


@pytest.mark.parametrize(("init", "weights"), [("pretrained", (Path("x.pth"), "teacher")), ("random", (None, None))])
def test_untrained_twins_have_no_weights_of_a_file(init, weights, monkeypatch):
    monkeypatch.setattr("brdyn.models.load_model", lambda name, **options: options)
    request = RunRequest(out=Path("out"), weights=Path("x.pth"), weights_key="teacher")
    options = request.open_model("vit", init, "cpu", "float32")
    assert (options["weights"], options["weights_key"]) == weights
