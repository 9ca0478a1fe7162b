"""What a command does when not told otherwise is what the library does."""

from inspect import signature

import pytest

from brdyn.classifiers.config import ViTRMConfig
from brdyn.cli.dynamics import dynamics
from brdyn.cli.interventions import interventions
from brdyn.cli.perturb import perturb
from brdyn.cli.phases import phases
from brdyn.cli.probe import probe
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
