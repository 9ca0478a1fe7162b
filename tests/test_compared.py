"""What is public prints short and compares without raising."""

import dataclasses
import importlib

import numpy as np
import pandas as pd
import pytest
import torch

import brdyn
from brdyn.compared import Compared, brief, same
from brdyn.probes import Features
from tests.conftest import tiny_vit
from tests.test_doctests import ROOMS

NAN = float("nan")


@pytest.mark.parametrize(
    ("first", "second", "equal"),
    [
        (np.array([1.0, NAN]), np.array([1.0, NAN]), True),
        (np.array([1.0, 2.0]), np.array([1.0, 3.0]), False),
        (np.zeros(3), np.zeros(4), False),
        (torch.tensor([1.0, NAN]), torch.tensor([1.0, NAN]), True),
        (torch.tensor([1, 2]), torch.tensor([2, 1]), False),
        (pd.DataFrame({"a": [1, NAN]}), pd.DataFrame({"a": [1, NAN]}), True),
        (pd.DataFrame({"a": [1]}), pd.DataFrame({"b": [1]}), False),
        ({"a": np.zeros(2)}, {"a": np.zeros(2)}, True),
        ({"a": np.zeros(2)}, {"b": np.zeros(2)}, False),
        ([np.ones(1)], [np.ones(1), np.ones(1)], False),
        (("a", np.ones(1)), ("a", np.ones(1)), True),
        (1, 1.0, True),
        (NAN, NAN, True),
        ("a", b"a", False),
        (None, 0, False),
    ],
)
def test_content_is_compared(first, second, equal):
    assert same(first, second) is equal
    assert same(second, first) is equal


def test_what_is_long_is_shown_by_its_shape():
    assert brief({"a": np.zeros((2, 3)), "b": torch.zeros(4)}) == "{'a': ndarray(2, 3), 'b': Tensor(4)}"
    assert brief(list(range(9))) == "[0, 1, 2, 3, 4, 5, … 3 more]"
    assert len(brief("x" * 1000)) <= 60
    features = Features(torch.zeros(20, 32), torch.arange(20))
    assert repr(features) == "Features(values=Tensor(20, 32), labels=Tensor(20), positions=None)"
    assert features == Features(torch.zeros(20, 32), torch.arange(20))
    assert features != Features(torch.ones(20, 32), torch.arange(20))
    assert repr(tiny_vit()) == "TimmPlain(tiny_vit: 4 layers, width 16, test weights)"


@pytest.mark.parametrize("room", [brdyn.__name__, *(f"brdyn.{room}" for room in ROOMS)])
def test_records_with_arrays_are_compared_by_content(room):
    """A dataclass would compare arrays with `==`, which has no truth value."""
    module = importlib.import_module(room)
    raising = []
    for name in module.__all__:
        thing = getattr(module, name)
        if dataclasses.is_dataclass(thing) and any(
            word in str(one.type) for one in dataclasses.fields(thing) for word in ("ndarray", "Tensor", "DataFrame")
        ):
            own = issubclass(thing, Compared | brdyn.Result) or thing.__eq__ is object.__eq__
            raising += [] if own else [name]
    assert raising == []
