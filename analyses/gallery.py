"""Every picture that brdyn draws, made again from recorded results: docs/gallery.md and docs/images/gallery.

python -m analyses.gallery            # draw and write
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import yaml
from PIL import Image, ImageOps

import brdyn
from analyses.findings import phases, vitrm
from analyses.findings.raptor import LADDER_NAMES, of_the_recipe
from analyses.raptor_cells import Cells, read_cells
from analyses.recording import OFFLINE, RESULTS, ROOT, plain_parser
from analyses.render import page, rows_of
from analyses.vitrm_grid import read_grid
from brdyn import plots
from brdyn.classifiers import ClassifierEvaluation
from brdyn.classifiers.evaluation import Recursion
from brdyn.data.samples import SampleSource
from brdyn.plots.draw import heading
from brdyn.raptor.partitions import PARTITIONS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE = ROOT / "docs" / "gallery.md"
PICTURES = ROOT / "docs" / "images" / "gallery"
DOTS = 75  # per inch
COLOURS = 96
REFINED = 2  # Pillow's `kmeans`: a colour becomes the mean of what it stands for
SAMPLES = "samples.jpg"
FIRST = ROOT / "docs" / "images" / "similarity.png"  # of the README and the site's first page


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A picture of the gallery, as the table has it, where it is said what its entries are."""

    name: str
    title: str
    reading: str
    guide: str
    function: str
    of: str = ""
    picture: str = ""
    drawn: str = ""
    command: str = ""

    @property
    def shown(self) -> bool:
        """Whether a recorded run has what it shows."""
        return bool(self.of or self.drawn)

    @property
    def home(self) -> str:
        """The module of its function."""
        return str(getattr(plots, self.function).__module__)

    def draw(self) -> Figure:
        return DRAWN[self.drawn](self.name) if self.drawn else drawn(self.of)[self.picture or self.name]


class Section(NamedTuple):
    title: str
    pictures: list[Entry]


@cache
def drawn(folder: str) -> dict[str, Figure]:
    """The pictures of a recorded result."""
    return plots.draw(brdyn.read(RESULTS / folder))


def steps(_: str) -> Figure:
    run = phases.recorded(OFFLINE)
    return plots.plot_steps(phases.evidence_of(run), title=heading(run))


@cache
def cells() -> Cells:
    return read_cells()


def layer_fidelity(_: str) -> Figure:
    rows = cells().fidelity[cells().fidelity["images"] == "photos"]
    tables = {f"k={k}": rows[rows["cell"] == f"maxcut_k{k}"] for k in (1, 2, 3, 5)}
    return plots.plot_layer_fidelity(tables, title=cells().heading(images="photos"))


def partitions(_: str) -> Figure:
    fits = of_the_recipe(cells()).sort_values("partition", key=lambda one: one.map(PARTITIONS.index))
    values = {"kept": "share of linear probe accuracy", "r2_one_step": "one-step R² (mean)"}
    return plots.plot_partitions(fits, values, title=cells().probed_heading(fits=fits))


def ladder(_: str) -> Figure:
    names = {name: label for name, label in LADDER_NAMES.items() if name in cells().summary.index}
    fits = cells().summary.loc[list(names)].rename(index=names)
    values = {"kept": "share of linear probe accuracy", "r2": "R² of the last layer"}
    return plots.plot_ladder(fits, values, title=cells().probed_heading("k = 3", fits))


def recursion(name: str) -> Figure:
    run = vitrm.load().runs["vitrm"]
    side = run["options"]["image_size"]
    found = Recursion.from_dict({**run["evaluation"]["recursion"], "n_images": run["test"]["images"]})
    test = {**run["test"], "image_size": [side, side]}
    return plots.draw(ClassifierEvaluation("vitrm", run["parameters"], "", test, recursion=found))[name]


def grid(_: str) -> Figure:
    found = read_grid()
    assert found is not None
    return plots.plot_grid(found.cells, title=found.heading())


DRAWN = {one.__name__: one for one in (steps, layer_fidelity, partitions, ladder, recursion, grid)}


@cache
def sections() -> list[Section]:
    """The table. Raises TypeError if a picture has an entry that is none."""
    table = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text())
    return [Section(one["title"], [Entry(**row) for row in rows_of(one, "pictures")]) for one in table]


def entries() -> list[Entry]:
    return [entry for section in sections() for entry in section.pictures]


def text() -> str:
    """docs/gallery.md."""
    return page("gallery.md.j2", sections=sections()).rstrip("\n") + "\n"


def thumbnail(entry: Entry) -> bytes:
    """A small PNG of the picture."""
    raw, small = BytesIO(), BytesIO()
    entry.draw().savefig(raw, dpi=DOTS, format="png")
    in_few_colours(Image.open(raw)).save(small, "png", optimize=True)
    return small.getvalue()


def in_few_colours(image: Image.Image) -> Image.Image:
    """Chosen so that thin curves keep theirs, however much there is of another, and greys stay grey."""
    return image.convert("RGB").quantize(COLOURS, Image.Quantize.MAXCOVERAGE, REFINED, dither=Image.Dither.NONE)


def samples(columns: int = 10, rows: int = 2, side: int = 84) -> bytes:
    """Some of the images that come with brdyn, side by side; not a plot, but the guide shows them."""
    sheet, source = Image.new("RGB", (columns * side, rows * side)), SampleSource()
    for place in range(columns * rows):
        image = source.image(place * len(source) // (columns * rows)).convert("RGB")
        sheet.paste(ImageOps.fit(image, (side, side)), (place % columns * side, place // columns * side))
    small = BytesIO()
    sheet.save(small, "jpeg", quality=80)
    return small.getvalue()


if __name__ == "__main__":
    plain_parser(__doc__).parse_args()
    PICTURES.mkdir(parents=True, exist_ok=True)
    for one in entries():
        if one.shown:
            (PICTURES / f"{one.name}.png").write_bytes(thumbnail(one))
    (PICTURES / SAMPLES).write_bytes(samples())
    drawn(f"phases/{OFFLINE}")["similarity"].savefig(FIRST, dpi=140, metadata={"Software": None})
    PAGE.write_text(text())
