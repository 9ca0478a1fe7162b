"""Kinds that signatures declare are checked, and boundaries, tokens and layers are taken as people write them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import brdyn
from brdyn import phases, probes
from brdyn.arguments import check, checked, fits
from brdyn.errors import UsageError
from brdyn.trajectory import Stream
from tests.conftest import tiny_vit

EYE = np.eye(4)
SIMILARITY = brdyn.LayerSimilarity("cosine", "cls", EYE, EYE[None], "image", 3)


@pytest.mark.parametrize(
    ("value", "kind", "said"),
    [
        ("2", int, "`it='2'` is not a whole number; give one such as 2"),
        (2.0, int, "`it=2.0` is not a whole number; give one such as 2"),
        (True, int | None, "`it=True` is not a whole number; give one such as 2"),
        ("x", float, "`it='x'` is not a number; give one such as 0.1"),
        (1j, float, "`it=1j` is not a number; give one such as 0.1"),
        (1, bool, "`it=1` is not True or False; give one of them"),
        (3, str | Path, "`it=3` is not a path; give one such as 'runs/one'"),
        (["cls"], str, "`it=['cls']` is not a text; give 'cls'"),
        (0.2, Sequence[float], "`it=0.2` is not a list; give [0.2]"),
        (None, Sequence[str], "`it=None` is not a list; give several"),
        ([1.0], Sequence[int] | None, "`it[0]=1.0` is not a whole number; give one such as 2"),
        ([(0, 2), 3], Sequence[tuple[int, int]], "`it[1]=3` is not a list; give several"),
        ([(0, 2, 4)], Sequence[tuple[int, int]], "`it[0]=(0, 2, 4)` has 3 entries; give 2"),
        (3, Mapping[str, int], "`it=3` is not a mapping; give a dict"),
        ({"a": "b"}, Mapping[str, int], "`it['a']='b'` is not a whole number; give one such as 2"),
        (3, Callable[..., int], "`it=3` is not a function; give one that can be called"),
        (EYE, torch.Tensor, "`it=ndarray(4, 4)` is not a tensor; give one such as `torch.zeros(3)`"),
        (3, Stream | None, "`it=3` is not a Stream; give `brdyn.trajectory.Stream(…)`"),
        (
            3,
            phases.Phases | Sequence[int],
            "`it=3` is not phases; give what `brdyn.segment` returns, or boundaries such as [4, 8]",
        ),
    ],
)
def test_a_wrong_kind_is_told_with_what_to_give(value, kind, said):
    with pytest.raises(UsageError) as told:
        check("it", value, kind)
    assert str(told.value) == said


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (np.int64(2), int),
        (np.float32(2), float),
        (2, float),
        (np.True_, bool),
        (None, int | None),
        ("x", str | Path),
        (np.array([1, 2]), Sequence[int]),
        ({3: "x"}, Mapping[int, str]),
        (dict.fromkeys("ab"), Mapping),
        ((1, 2), tuple[int, int]),
        ((1, 2, 3), tuple[int, ...]),
        (object(), "known to type checkers alone"),
    ],
)
def test_what_is_of_a_kind_is_let_through(value, kind):
    assert fits(value, kind)
    check("it", value, kind)


def test_python_tells_of_too_many_arguments_and_a_class_checks_what_it_is_made_of():
    @checked
    def one(number: int, *more: int, other: "Unknown" = None, **rest: int) -> int:  # noqa: F821
        return number

    assert one(3, 4, other="x", all="y") == 3
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'number'"):
        one()
    with pytest.raises(UsageError, match=r"`more\[1\]='x'` is not a whole number"):
        one(1, 2, "x")
    with pytest.raises(UsageError, match="`workers='x'` is not a whole number"):
        Stream(workers="x")


@pytest.mark.parametrize("room", ["", "classifiers", "interventions", "measures", "phases", "probes", "raptor"])
def test_every_public_function_checks_its_arguments(room):
    module = getattr(brdyn, room) if room else brdyn
    public = {name: getattr(module, name) for name in module.__all__}
    unchecked = [
        name
        for name, one in public.items()
        if not isinstance(one, type) and callable(one) and one.__code__.co_filename != check.__code__.co_filename
    ]
    assert unchecked == ([] if room else ["adapt", "list_models", "load_model"])  # two have their own words


def test_boundaries_are_phases_wherever_phases_are_taken(noise_folder):
    model = tiny_vit()
    images, stream = brdyn.load_images(noise_folder, model, n=8), Stream(workers=0)
    found = brdyn.token_dynamics(model, images, [2], measures=["estimation"], stream=stream)
    assert (found.phases.boundaries, found.phases.k_rule) == ((2,), "given by the user")
    assert found.phases.evidence is found.phases.stability is None
    options = {"kinds": ["delete"], "stream": stream}
    by_list = brdyn.layer_surgery(model, images, np.array([0, 0, 1, 1]), **options)
    by_phases = brdyn.layer_surgery(model, images, by_list.phases, **options)
    assert by_list.phases.intervals == [(1, 2), (3, 4)]
    assert by_list == replace(by_phases, provenance=by_list.provenance)
    assert brdyn.perturbation_repair(model, images, [1, 3], eps=[0.1], stream=stream).phases.k == 3
    assert brdyn.phases.Phases.from_dict(found.phases.to_dict()) == found.phases


def test_tokens_and_layers_are_taken_as_lists(noise_folder, little_cifar):
    model, stream = tiny_vit(), Stream(workers=0)
    images = brdyn.load_images(noise_folder, model, n=4)
    listed, joined = (
        brdyn.layer_similarity(model, images, tokens=tokens, stream=stream)
        for tokens in (["cls", "registers"], "cls+registers")
    )
    assert listed == replace(joined, provenance=listed.provenance)
    asked = probes.LayersAsked
    assert asked.parse([3, 2]) == asked.parse("3,2")
    assert asked.parse(np.int64(3)) == asked.parse("3")
    with pytest.raises(UsageError, match="`layers=` is neither last, all, a list such as 3,7,12, nor choose:4"):
        asked.parse([])


def test_results_of_one_layer_that_have_no_numbers_are_compared_and_saved(tmp_path):
    one = brdyn.LayerSimilarity("cosine", "cls", np.eye(1), None, "none", 3)
    comparison = brdyn.compare(one, one)
    assert comparison.table() == []
    assert comparison.save(tmp_path / "compared") == ["compare.json", "compare.csv"]
    assert (tmp_path / "compared" / "compare.csv").read_text() == "number,result 1,result 2\n"


@pytest.mark.parametrize("call", [SIMILARITY.save, brdyn.compare(SIMILARITY, SIMILARITY).save])
def test_a_folder_and_formats_of_a_wrong_kind_are_refused(call, tmp_path):
    with pytest.raises(UsageError, match="`folder=3` is not a path; give one such as 'runs/one'"):
        call(3)
    with pytest.raises(UsageError, match=r"`formats='png'` is not a list; give \['png'\]"):
        call(tmp_path / "out", formats="png")
