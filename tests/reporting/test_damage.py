"""Results in a report's folder that cannot be read: told in a line, measured again, and the rest stays."""

import json

import pytest

import brdyn
from brdyn.errors import UsageError
from brdyn.store import to_json
from tests.reporting.test_run import SECTIONS


def cut(path):
    path.write_bytes(path.read_bytes()[:100])


def empty(path):
    path.write_bytes(b"")


def crooked(path):
    content = json.loads(path.read_bytes())
    content["similarity"]["matrix"][0].pop()
    path.write_bytes(to_json(content))


MOTION = {"deeper/phases", "deeper/dynamics"}  # of one pass


@pytest.mark.parametrize(
    ("file", "damage", "measured"),
    [
        ("phases/phases.json", crooked, MOTION),
        ("phases/phases.json", cut, MOTION),
        ("dynamics/null_dynamics.parquet", cut, MOTION),
        ("splice/splice.json", empty, {"deeper/splice"}),
        ("probe/per_image.parquet", empty, {"deeper/probe"}),
    ],
)
def test_a_damaged_section_is_told_and_measured_again(file, damage, measured, again):
    path = again.out / "deeper" / file
    damage(path)
    with pytest.raises(UsageError, match=rf"{path.name}.*; copy it again, or run the command again$"):
        brdyn.read(path.parent)
    found, written, said = again()
    assert written == measured
    assert [one.sections for one in found.models] == [SECTIONS, SECTIONS]
    assert not any(one.failures for one in found.models)
    told = [line for line in said if "is measured again" in line]
    assert len(told) == 1
    assert told[0].startswith(f"    {path.parent.name} is measured again: ")
    assert path.name in told[0]


def test_what_a_newer_brdyn_wrote_is_not_replaced_unasked(again):
    path = again.out / "deeper" / "splice" / "splice.json"
    path.write_bytes(to_json({**json.loads(path.read_bytes()), "schema": 99}))
    with pytest.raises(UsageError, match=r"deeper/splice \(of a newer brdyn\)"):
        again()
    assert again(overwrite=True)[1] == {"deeper/splice"}
