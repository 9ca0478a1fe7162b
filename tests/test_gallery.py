"""The gallery shows every picture that brdyn draws, as it draws it today."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from PIL.ImageColor import getrgb

from analyses import gallery
from brdyn import plots
from brdyn.plots.dynamics import BAND

MOST_BYTES = 1_500_000
ALIKE = 2.0  # of 255, on average: other fonts and versions move an edge by a fraction of a dot

ENTRIES = {entry.name: entry for entry in gallery.entries()}


def test_every_plot_function_has_an_entry():
    told = {entry.function for entry in ENTRIES.values()}
    assert told == {name for name in plots.__all__ if name.startswith("plot_")}


def test_the_page_is_what_the_entries_say():
    assert gallery.PAGE.read_text() == gallery.text()


def test_there_is_a_small_picture_of_each_and_no_other():
    files = list(gallery.PICTURES.iterdir())
    drawn = {f"{name}.png" for name, entry in ENTRIES.items() if entry.shown}
    assert {file.name for file in files} == {*drawn, gallery.SAMPLES}
    assert sum(file.stat().st_size for file in files) < MOST_BYTES


@pytest.mark.parametrize("name", ["ranks", "exchange", "repair"])
def test_few_colours_are_those_of_the_picture(name):
    """A thin blue curve beside green ones stays blue."""
    raw = BytesIO()
    ENTRIES[name].draw().savefig(raw, dpi=gallery.DOTS, format="png")
    whole = Image.open(raw).convert("RGB")
    few = gallery.in_few_colours(whole).convert("RGB")
    assert np.abs(np.asarray(whole, dtype=float) - np.asarray(few)).max() < 30


def test_the_bands_of_phases_stay_grey():
    raw = BytesIO()
    ENTRIES["repair"].draw().savefig(raw, dpi=gallery.DOTS, format="png")
    whole = Image.open(raw).convert("RGB")
    few = np.asarray(gallery.in_few_colours(whole).convert("RGB"))
    band = few[(np.asarray(whole) == getrgb(BAND)).all(axis=-1)]
    assert len(band)
    assert np.ptp(band.astype(int), axis=-1).max() <= 1


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, entry in ENTRIES.items() if entry.shown])
def test_a_picture_is_drawn_so_today(name):
    """If not: python -m analyses.gallery."""
    shown, today = (
        np.asarray(Image.open(file).convert("RGB"), dtype=float)
        for file in (gallery.PICTURES / f"{name}.png", BytesIO(gallery.thumbnail(ENTRIES[name])))
    )
    assert shown.shape == today.shape
    assert np.abs(shown - today).mean() < ALIKE
