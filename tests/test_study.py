"""What every study does: skip what is recorded, record what fails and try it again, share the work, stop in time."""

import json
import sys
from argparse import Namespace

import pytest

from analyses import (
    shared_blocks,
    stochastic_depth,
    study,
    vitrm_dynamics,
    vitrm_grid,
    vitrm_on_cifar,
)
from analyses.study import OutOfTime, Study, digest_of, is_recorded, run_study, share_of, study_parser
from brdyn.errors import BrdynError, UsageError


class Squares(Study[str]):
    """Numbers, which are squared."""

    def __init__(self, choice, power=2):
        super().__init__(choice)
        self.folder, self.power, self.ran = choice.out, power, []

    @classmethod
    def planned(cls, size):
        return [f"n{number}" for number in range(1, 5)]

    def asked(self, cell):
        return {"number": int(cell[1:]), "power": self.power}

    def run(self, cell, asked):
        number = asked["number"]
        self.ran.append(number)
        if number == 3 and self.power == 2:
            raise RuntimeError("three is too many")
        return {"square": number**self.power}

    def said(self, content):
        return f"{content['square']}"


def squares(tmp_path, power=2, **options):
    return Squares(
        Namespace(
            **{
                "device": "cpu",
                "minutes": 1,
                "share": "0/1",
                "only": None,
                "size": "",
                "out": tmp_path,
                **options,
            }
        ),
        power,
    )


def test_cells_are_recorded_once_and_failures_are_tried_again(tmp_path, capsys):
    first = squares(tmp_path)
    first.work()
    assert capsys.readouterr().out.splitlines() == [
        "n1: 1",
        "n2: 4",
        "n3: RuntimeError: three is too many",
        "n4: 16",
    ]
    assert json.loads((tmp_path / "n3.json").read_text())["failed"] == "RuntimeError: three is too many"
    assert [is_recorded(tmp_path / f"n{cell}.json") for cell in range(5)] == [False, True, True, False, True]
    again = squares(tmp_path)
    again.work()
    assert again.ran == [3]
    other = squares(tmp_path, power=3)  # asked for otherwise
    other.work()
    assert other.ran == [1, 2, 3, 4]
    content = json.loads((tmp_path / "n3.json").read_text())
    assert (content["square"], content["cell"], content["asked"]) == (27, "n3", {"number": 3, "power": 3})
    assert content["provenance"]["device"]


def test_the_work_is_shared(tmp_path):
    parts = [squares(tmp_path, 3, share=f"{part}/3") for part in range(3)]
    for part in parts:
        part.work()
    assert [part.ran for part in parts] == [[1, 4], [2], [3]]
    with pytest.raises(UsageError, match="'3/3' is not i/n"):
        share_of("3/3")


@pytest.mark.parametrize(
    ("module", "size"),
    [(shared_blocks, "cpu"), (shared_blocks, "tiny"), (stochastic_depth, "gpu"), (stochastic_depth, "cpu"),
     (vitrm_on_cifar, "gpu"), (vitrm_dynamics, "gpu"), (vitrm_grid, "gpu")],
)  # fmt: skip
def test_a_network_and_what_is_measured_on_it_are_of_one_process(module, size):
    """A Raptor waits for its network, which another process would not have trained yet."""
    study, planned = module.STUDY.__new__(module.STUDY), module.STUDY.planned(size)
    parts = []
    for part in range(2):
        study.choice, study.wanted = Namespace(share=f"{part}/2"), planned
        parts.append(study.shared())
    for part in parts:
        networks = [study.network_of(cell) for cell in part]
        assert all(one is None or one in part or one not in planned for one in networks)
    assert sorted(map(str, [*parts[0], *parts[1]])) == sorted(map(str, planned))
    assert min(map(len, parts)) >= len(planned) // 4  # both have something to do


def test_nothing_is_begun_after_its_minutes_but_what_is_there_is_told(tmp_path, capsys):
    squares(tmp_path, 3).record("n1")
    late = squares(tmp_path, 3, minutes=-1)
    with pytest.raises(OutOfTime):
        late.work()
    assert late.ran == []
    assert capsys.readouterr().out == "n1: already recorded\n"


def test_to_be_out_of_time_is_no_failure_of_a_cell(tmp_path, monkeypatch):
    def over(self, cell, asked):
        raise OutOfTime("out of time")

    monkeypatch.setattr(Squares, "run", over)
    with pytest.raises(OutOfTime):
        squares(tmp_path).work()
    assert list(tmp_path.iterdir()) == []


def test_a_command_says_what_is_wrong_in_a_line(tmp_path, monkeypatch, capsys):
    def refused(choice):
        raise BrdynError("no such images")

    monkeypatch.setattr(sys, "argv", ["squares", "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as stop:
        run_study(refused, study_parser("It squares.", tmp_path, labelled=False), __name__)()
    assert stop.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith("error: no such images")


def test_files_with_a_digest_are_the_same_wherever_they_lie():
    here, there = ({"train": {"source": place, "digest": "abc"}, "n": [1, 2]} for place in ("a", "b"))
    assert digest_of(here) == digest_of(there)
    assert digest_of(here) != digest_of({**here, "n": [2, 1]})
    one, other = ({"train": {"source": place, "digest": None}} for place in ("a", "b"))
    assert digest_of(one) != digest_of(other)


def test_names_are_checked():
    every = ["fit_k2", "fit_k3", "other"]
    assert study.chosen("other,fit_*", every) == ["other", "fit_k2", "fit_k3"]
    assert study.chosen("fit_k3,fit_k*", every) == ["fit_k3", "fit_k2"]
    assert study.chosen(None, every) == every
    with pytest.raises(UsageError, match="--only: 'fit' is not one of fit_k2, fit_k3, other"):
        study.chosen("other,fit", every)
