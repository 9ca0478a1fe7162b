"""The Raptor of a report: of whose layers it is, what is left of a fit that is stopped, and whose teacher it takes."""

from dataclasses import replace

import numpy as np
import pytest

import brdyn
from brdyn.data import load_images
from brdyn.errors import UsageError
from brdyn.models import load_model
from brdyn.phases import segment
from brdyn.reporting import ReportSettings, raptors
from tests.models.own_vit import adapted, my_vit
from tests.reporting.built import DRIFT, HALVES, JUMP
from tests.reporting.conftest import STREAM, named

SETTINGS = ReportSettings(size="fast", n=12, fit_raptor=2)


@pytest.fixture
def fitted(plain, tmp_path):
    """Fit a Raptor to a model."""

    def call(model, phases):
        images = load_images(plain, model, n=12)
        return raptors.fitted_here(model, images, phases, SETTINGS, tmp_path / "raptor", STREAM)

    return call


@pytest.mark.parametrize(
    ("matrix", "k", "blocks"),
    [(JUMP, 3, HALVES), (JUMP, 1, HALVES), (DRIFT, 3, segment(DRIFT, 3).labels.tolist())],
)
def test_blocks_are_of_the_phases_of_the_test(matrix, k, blocks, fitted):
    """Of the cut that is chosen where it accepts none."""
    with fitted(named("deep", 12), segment(matrix, k)) as fit:
        assert list(fit.options["assignment"]) == list(blocks)


def test_a_fit_that_cannot_be_kept_goes_on_where_it_was(fitted, tmp_path, monkeypatch):
    """Its checkpoints are there until the result is."""
    steps, fit_raptor = [], raptors.fit_raptor

    def watched(*args, session, **options):
        steps.append(None if session.resume is None else (session.resume.stage, session.resume.step))
        return fit_raptor(*args, session=session, **options)

    monkeypatch.setattr(raptors, "fit_raptor", watched)
    model, phases = named("little"), segment(np.eye(6), 2)
    with pytest.raises(OSError, match="no space"), fitted(model, phases):
        raise OSError("no space")
    with fitted(model, phases):
        pass
    assert steps[0] is None
    assert steps[1] is not None
    assert not (tmp_path / "raptor" / "checkpoints").exists()


def test_a_raptor_of_an_own_module_is_judged_by_the_one_at_hand(plain, tmp_path, pageless):
    """Fitted here, or given: its teacher is in no file."""
    own = adapted(my_vit(depth=6))
    out = tmp_path / "out"
    (one,) = brdyn.report([own], plain, out, SETTINGS, stream=STREAM, formats=()).models
    assert not one.failures
    assert one.sections[-2:] == ("raptor", "raptor-eval")
    folder = str(out / one.folder / "raptor")
    raptor = load_model(folder, teacher=own)
    assert raptors.given_raptors([folder], [named("little"), own]) == {1: (folder, raptor.info.digest)}
    images = load_images(plain, own, n=12)
    judged = raptors.evaluate_raptor(folder, own, images, SETTINGS, True, STREAM)
    assert judged.fidelity == brdyn.raptor.evaluate(raptor, images, stream=STREAM).fidelity
    with pytest.raises(UsageError, match="is not a Raptor; give the folder"):
        raptors.given_raptors([str(out / one.folder / "phases")], [own])
    own.info = replace(own.info, image_size=(32, 32))
    with pytest.raises(UsageError, match="for images of 16x24 pixels; give the report that `image_size`"):
        raptors.given_raptors([folder], [own])
