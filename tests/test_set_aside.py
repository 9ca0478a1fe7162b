"""What a killed run has set aside, where a result is looked for."""

import json

import pytest

import brdyn
from brdyn.errors import UsageError
from brdyn.measures.dynamics import Dynamics


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (
            ["phases.json", "steps.png"],
            r"has set phases.json aside, .*; `mv '.*/a run/.phases.json.replaced' '.*'` brings",
        ),
        (["phases.json", "x.parquet"], r"and may have replaced some of what it names: run the command again\)"),
    ],
)
def test_what_a_killed_run_has_set_aside_is_named(files, words, tmp_path):
    (tmp_path / "a run").mkdir()
    (tmp_path / "a run" / ".phases.json.replaced").write_text(json.dumps({"files": files}))
    for reader in (brdyn.read, Dynamics.read):
        with pytest.raises(UsageError, match=words):
            reader(tmp_path / "a run")
