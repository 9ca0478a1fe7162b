"""The map of the house, in pyproject.toml: no import runs upwards, and none in a circle; and that of its reference."""

import re
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import pytest
from importlinter.cli import lint_imports

import brdyn

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "pyproject.toml"
REFERENCE = ROOT / "docs" / "reference"


@pytest.mark.parametrize("contract", ["rooms", "root", "modules"])
def test_no_import_runs_upwards_or_in_a_circle(contract):
    assert lint_imports(str(CONFIG), limit_to_contracts=(contract,), no_cache=True) == 0


def test_every_public_name_is_in_the_reference():
    """The module that makes what a room, or brdyn itself, gives out."""
    pages = "\n".join(page.read_text() for page in REFERENCE.glob("*.md"))
    told = set(re.findall(r"automodule:: ([\w.]+)", pages))
    rooms = [one.name for one in iter_modules(brdyn.__path__) if one.ispkg and one.name != "cli"]
    missing = {
        f"{home}: {room.__name__}.{name}"
        for room in (brdyn, *(import_module(f"brdyn.{room}") for room in rooms))
        for name in getattr(room, "__all__", ())
        if (home := getattr(getattr(room, name), "__module__", "")).startswith("brdyn") and home not in told
    }
    assert missing == set()


def test_the_first_page_of_the_reference_has_all_names():
    page = (REFERENCE / "api.md").read_text()
    assert [name for name in brdyn.__all__ if f"`brdyn.{name}`" not in page] == []


def test_rooms_can_be_had_and_are_not_among_the_names():
    rooms = {one.name for one in iter_modules(brdyn.__path__) if one.ispkg} - {"cli", "store"}
    assert rooms.isdisjoint(brdyn.__all__)
    assert {*brdyn.__all__, *rooms} == set(dir(brdyn))
