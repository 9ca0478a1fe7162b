"""The map of the house, in pyproject.toml: no import runs upwards, and none in a circle."""

from pathlib import Path

import pytest
from importlinter.cli import lint_imports

CONFIG = Path(__file__).parents[1] / "pyproject.toml"


@pytest.mark.parametrize("contract", ["rooms", "modules"])
def test_no_import_runs_upwards_or_in_a_circle(contract):
    assert lint_imports(str(CONFIG), limit_to_contracts=(contract,), no_cache=True) == 0
