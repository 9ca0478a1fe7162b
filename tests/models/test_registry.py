"""Families are found by the names of their modules."""

import sys
from types import ModuleType

import pytest

from brdyn.errors import UsageError
from brdyn.models import list_models, load_model, registry


@pytest.fixture
def toy(monkeypatch, tiny):
    """A family from outside of brdyn with one model, and the requests it was given."""
    family, requests = ModuleType("somebodys.family"), []
    family.FAMILY, family.names, family.matches = "toy", lambda: ("toy",), lambda name: name == "toy"
    family.load = lambda request: requests.append(request) or tiny
    monkeypatch.setitem(sys.modules, "somebodys", ModuleType("somebodys"))
    monkeypatch.setitem(sys.modules, family.__name__, family)
    monkeypatch.setattr(registry, "FAMILIES", (*registry.FAMILIES, family.__name__))
    return family, requests


def test_a_family_from_outside_serves_its_model(toy, tiny):
    _, requests = toy
    assert ("toy", "toy") in set(list_models())
    assert load_model("toy", seed=3) is tiny
    assert [(request.name, request.seed) for request in requests] == [("toy", 3)]


def test_only_a_family_that_says_so_is_given_a_teacher(toy, tiny):
    family, requests = toy
    with pytest.raises(UsageError, match="'toy' is no fitted Raptor and has no teacher; drop `teacher`"):
        load_model("toy", teacher="somebody")
    family.TAKES_TEACHER = True
    load_model("toy", teacher="somebody")
    assert [request.teacher for request in requests] == ["somebody"]


def test_a_family_behind_the_one_that_serves_is_not_imported(monkeypatch, tiny, toy):
    family, _ = toy
    monkeypatch.setattr(registry, "FAMILIES", (family.__name__, "not.there"))
    assert load_model("toy") is tiny
