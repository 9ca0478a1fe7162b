"""Every picture that brdyn draws, made again from recorded results: docs/gallery.md and docs/images/gallery.

python -m analyses.gallery            # draw and write
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from typing import TYPE_CHECKING

from PIL import Image, ImageOps

import brdyn
from analyses.findings import vitrm
from analyses.findings.raptor import LADDER_NAMES
from analyses.raptor_cells import Cells, read_cells
from analyses.recording import OFFLINE, RESULTS, ROOT, SMALL_VIT, plain_parser
from analyses.vitrm_grid import read_grid
from brdyn import plots
from brdyn.classifiers import ClassifierEvaluation
from brdyn.classifiers.evaluation import Recursion
from brdyn.data.samples import SampleSource
from brdyn.phases import phase_evidence
from brdyn.plots.draw import heading
from brdyn.raptor.partitions import PARTITIONS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE = ROOT / "docs" / "gallery.md"
PICTURES = ROOT / "docs" / "images" / "gallery"
DOTS = 75  # per inch
COLOURS = 96
SAMPLES = "samples.jpg"
FIRST = ROOT / "docs" / "images" / "similarity.png"  # of the README and the site's first page


@dataclass(frozen=True)
class Entry:
    """A picture of the gallery.

    Attributes
    ----------
    name : str
        Of its file, which is that of the command too where one writes it.
    title, reading : str
        What it is of, and how to read it in a sentence.
    guide : str
        Page of the guide that says more.
    function : str
        Of :mod:`brdyn.plots`.
    drawn : callable or None
        Makes it; None where no recorded run has what it shows.
    command : str
        That writes it; empty where it is drawn from several results by hand.
    """

    name: str
    title: str
    reading: str
    guide: str
    function: str
    drawn: Callable[[], Figure] | None
    command: str = ""


@cache
def drawn(folder: str) -> dict[str, Figure]:
    """The pictures of a recorded result."""
    return plots.draw(brdyn.read(RESULTS / folder))


def of(folder: str, name: str) -> Callable[[], Figure]:
    return lambda: drawn(folder)[name]


def steps() -> Figure:
    run = brdyn.read(RESULTS / "phases" / OFFLINE)
    assert isinstance(run, brdyn.Phases)
    assert run.similarity is not None
    title = heading(run)
    return plots.plot_steps(phase_evidence(1 - run.similarity.matrix), title=title)


@cache
def cells() -> Cells:
    return read_cells()


def layer_fidelity() -> Figure:
    rows = cells().fidelity[cells().fidelity["images"] == "photos"]
    tables = {f"k={k}": rows[rows["cell"] == f"maxcut_k{k}"] for k in (1, 2, 3, 5)}
    return plots.plot_layer_fidelity(tables, title=cells().heading(images="photos"))


def partitions() -> Figure:
    fits = cells().summary
    fits = fits[fits["varies"] != "recipe"].sort_values(
        "partition", key=lambda one: one.map(PARTITIONS.index)
    )
    values = {"kept": "share of linear probe accuracy", "r2_one_step": "one-step R² (mean)"}
    return plots.plot_partitions(fits, values, title=cells().probed_heading(fits=fits))


def ladder() -> Figure:
    names = {name: label for name, label in LADDER_NAMES.items() if name in cells().summary.index}
    fits = cells().summary.loc[list(names)].rename(index=names)
    values = {"kept": "share of linear probe accuracy", "r2": "R² of the last layer"}
    return plots.plot_ladder(fits, values, title=cells().probed_heading("k = 3", fits))


def recursion(name: str) -> Callable[[], Figure]:
    def draw() -> Figure:
        run = vitrm.load().runs["vitrm"]
        side = run["options"]["image_size"]
        found = Recursion.from_dict({**run["evaluation"]["recursion"], "n_images": run["test"]["images"]})
        test = {**run["test"], "image_size": [side, side]}
        return plots.draw(ClassifierEvaluation("vitrm", run["parameters"], "", test, recursion=found))[name]

    return draw


def grid() -> Figure:
    found = read_grid()
    assert found is not None
    return plots.plot_grid(found.cells, title=found.heading())


PHASES, MOVES, NOISE, SURGERY, SPLICE, RAPTOR, VITRM, PROBES = (
    f"guide/{page}.md"
    for page in ("phases", "dynamics", "perturbation", "interventions", "splice", "raptor", "vitrm", "probes")
)
OF_PHASES, OF_DYNAMICS = f"phases/{OFFLINE}", f"dynamics/{SMALL_VIT}"
OF_LAYERS, OF_SPLICE = f"layers/{SMALL_VIT}", f"splice/{SMALL_VIT}"
SECTIONS: dict[str, tuple[Entry, ...]] = {
    "Phases": (
        Entry(
            "similarity", "Similarity between layers",
            "Bright squares along the diagonal are layers that do alike; the frames are the chosen phases, and "
            "a ramp without edges is no evidence of any.",
            PHASES, "plot_similarity", of(OF_PHASES, "similarity"), "brdyn phases",
        ),
        Entry(
            "steps", "The test of boundaries",
            "A step that leaves the grey band of a smooth drift is a boundary; the p-value is that of the "
            "largest.",
            PHASES, "plot_steps", steps, "brdyn phases",
        ),
        Entry(
            "gain_curve", "Cut against a drift",
            "Above the dotted line k phases cut more dissimilarity than they would of a drift without "
            "structure; the dashed line is the k that was chosen.",
            PHASES, "plot_gain_curve", of(OF_PHASES, "gain_curve"), "brdyn phases",
        ),
        Entry(
            "stability", "Stability of boundaries",
            "A row is a number of phases, and dark cells are boundaries that samples of the images agree on; "
            "the frame is the k that was chosen.",
            PHASES, "plot_stability", of(OF_PHASES, "stability"), "brdyn phases",
        ),
    ),
    "Dynamics": (
        Entry(
            "convergence", "Directional convergence",
            "Cosine of every state to the last one: where it rises evenly tokens turn steadily towards where "
            "they end.",
            MOVES, "plot_curves", of(OF_DYNAMICS, "convergence"), "brdyn dynamics",
        ),
        Entry(
            "speed", "Angular speed and turning",
            "How far a token turns in each update, and the angle between one update and the next: π / 2 is what"
            " unrelated directions have.",
            MOVES, "plot_panels", of(OF_DYNAMICS, "speed"), "brdyn dynamics",
        ),
        Entry(
            "norm", "Token norms",
            "Length of the states, on a logarithmic axis: a straight rise is growth by the same factor each "
            "layer.",
            MOVES, "plot_panels", of(OF_DYNAMICS, "norm"), "brdyn dynamics",
        ),
        Entry(
            "estimation", "Estimation error within phases",
            "If a phase refines one estimate the mean stays near 0 and the variance falls to the end of the "
            "phase.",
            MOVES, "plot_panels", of(OF_DYNAMICS, "estimation"), "brdyn dynamics",
        ),
        Entry(
            "update_rank", "Rank and coherence of updates",
            "How many directions the patches of an image move in, and whether they move alike (coherence 1).",
            MOVES, "plot_panels", of(OF_DYNAMICS, "update_rank"), "brdyn dynamics",
        ),
        Entry(
            "basins", "Angular basins",
            "Images of a class lie nearer together than those of different ones where the ratio is below 1 and "
            "the purity above chance.",
            MOVES, "plot_basins", of(OF_DYNAMICS, "basins"), "brdyn dynamics",
        ),
        Entry(
            "basins_projection", "Paths of classes",
            "Points are images at the last layer, lines the way of each class's mean from the embedding to "
            "there.",
            MOVES, "plot_projection", of(OF_DYNAMICS, "basins_projection"), "brdyn dynamics",
        ),
        Entry(
            "readout", "What the head reads from every state",
            "Share of images of which a state already gives the final class; the dotted line is the mean state from "
            "which on it stands.",
            MOVES, "plot_readout", of(OF_LAYERS, "readout"), "brdyn dynamics",
        ),
        Entry(
            "branches", "Attention and MLP apart",
            "How much of the norm of both updates is of attention, by token group; hatched is where untrained twins "
            "have the border.",
            MOVES, "plot_branches", of(OF_LAYERS, "branches"), "brdyn dynamics",
        ),
        Entry(
            "modes", "One linear operator per phase",
            "Below 1 a predictor knows more than the mean state; if one operator follows the endpoint map, the "
            "phase is nearly linear and repeats itself.",
            MOVES, "plot_mode_errors", of(OF_DYNAMICS, "modes"), "brdyn dynamics",
        ),
        Entry(
            "spectrum", "Eigenvalues of those operators",
            "Inside the circle a direction shrinks with each layer, outside it grows, at 1 it is carried along.",
            MOVES, "plot_spectra", of(OF_DYNAMICS, "spectrum"), "brdyn dynamics",
        ),
        Entry(
            "exponents", "Lyapunov exponents",
            "How much each block stretches a change of its input; a direction whose growth is below the dashed line, "
            "that of the tokens' norm, turns towards the others.",
            MOVES, "plot_exponents", of(OF_LAYERS, "exponents"), "brdyn dynamics --measures spectra",
        ),
        Entry(
            "coupling", "Singular values and coupling of blocks",
            "Bright pairs of blocks stretch the same directions; if phases share them, those lie within the frames. "
            "Grey is a block with itself.",
            MOVES, "plot_coupling", of(OF_LAYERS, "coupling"), "brdyn dynamics --measures spectra --krylov-steps 4",
        ),
    ),
    "Perturbation": (
        Entry(
            "final_angle", "What is left of noise",
            "Angle to the clean state at the last layer by where noise was added: a curve that rises means that"
            " early noise is repaired.",
            NOISE, "plot_final_angles", of(f"perturb/{SMALL_VIT}", "final_angle"), "brdyn perturb",
        ),
        Entry(
            "growth", "Growth rate of noise",
            "Below 0 noise shrinks on its way to the last layer.",
            NOISE, "plot_growth", of(f"perturb/{SMALL_VIT}", "growth"), "brdyn perturb",
        ),
        Entry(
            "repair", "Repair through depth",
            "A curve for each layer the noise came in at, dark for early ones: how fast it falls is how fast "
            "noise is repaired.",
            NOISE, "plot_repair", of(f"perturb/{SMALL_VIT}", "repair"), "brdyn perturb",
        ),
    ),
    "Interventions": (
        Entry(
            "swap", "Swapped layers",
            "Yellow pairs can change places at little harm; if phases are real, those are within the frames. "
            "Grey is a layer in its own place.",
            SURGERY, "plot_matrices", of(f"interventions/{SMALL_VIT}", "swap"), "brdyn interventions",
        ),
        Entry(
            "layers", "Deleted and shuffled layers",
            "Harm of leaving out each layer; and of shuffling a phase (filled) against as many layers across a "
            "boundary (hollow).",
            SURGERY, "plot_layers", of(f"interventions/{SMALL_VIT}", "layers"), "brdyn interventions",
        ),
    ),
    "Splice skill": (
        Entry(
            "spans", "What stands in for spans of layers",
            "Blue spans have a stand-in that is better than doing nothing; of red ones it is better to leave out "
            "the layers; the frames are phases.",
            SPLICE, "plot_spans", of(OF_SPLICE, "skill"), "brdyn splice",
        ),
        Entry(
            "exchange", "Whose work a block does",
            "Blue where the block of layer m does some of the work of layer l, white where it is as bad as nothing "
            "there, red where it is worse.",
            SPLICE, "plot_exchange", of(OF_SPLICE, "exchange"), "brdyn splice",
        ),
        Entry(
            "calibration", "What calibration buys",
            "R² of whole phases: a curve that still rises wants more images, and dashed lines need none.",
            SPLICE, "plot_calibration", of(OF_SPLICE, "calibration"), "brdyn splice",
        ),
    ),
    "Raptor": (
        Entry(
            "fit", "A fit",
            "Loss of every block in training, and R² on validation images: a curve over steps, or bars where it"
            " was measured once.",
            RAPTOR, "plot_fit", of(f"raptor/{SMALL_VIT}", "fit"), "brdyn raptor-fit",
        ),
        Entry(
            "fidelity", "Fidelity by layer",
            "How near the Raptor's states are to the teacher's, running alone (above) and from the teacher's "
            "own states (below); dotted lines end blocks.",
            RAPTOR, "plot_fidelity", of(f"raptor/{SMALL_VIT}_eval", "fidelity"), "brdyn raptor-eval",
        ),
        Entry(
            "skill", "Skill over baselines",
            "1 is perfect; at 0 a baseline that shares no block does as well.",
            RAPTOR, "plot_skill", None, "brdyn raptor-eval",
        ),
        Entry(
            "fixed_points", "Blocks past their phases",
            "Each block applied eight times as often as its phase is long (dotted: its end): a curve that falls to "
            "nothing contracts; where turning stays, it goes on.",
            "guide/recurrent.md", "plot_fixed_points", of(f"beyond/{SMALL_VIT}", "fixed_points"),
            "brdyn raptor-eval --beyond",
        ),
        Entry(
            "ranks", "How far from recurrent",
            "What shared blocks do with corrections of a rank for each layer: if phases can be shared, the curve of "
            "max-cut rises before those of random partitions.",
            RAPTOR, "plot_ranks", of(f"ranks/{SMALL_VIT}", "ranks"), "brdyn raptor-rank",
        ),
        Entry(
            "layer_fidelity", "Fidelity of several Raptors",
            "One statistic by layer, a curve for each Raptor; an arrow marks what lies below the axis, and the "
            "text how far.",
            RAPTOR, "plot_layer_fidelity", layer_fidelity,
        ),
        Entry(
            "partitions", "Max-cut against random partitions",
            "Every fit is a mark: where max-cut is no higher than the random partitions, it matters little "
            "which layers share a block.",
            RAPTOR, "plot_partitions", partitions,
        ),
        Entry(
            "ladder", "Ablations of the recipe",
            "A bar for each variant with its interval; ◀ says the value of a bar that leaves the axis.",
            RAPTOR, "plot_ladder", ladder,
        ),
    ),
    "Probes": (
        Entry(
            "scores", "What each layer tells",
            "The score of a probe on each layer with its interval over test images; dotted lines end phases.",
            PROBES, "plot_layer_scores", of(f"probes/{OFFLINE}_camvid", "scores"), "brdyn probe",
        ),
        Entry(
            "examples", "What a probe says of images",
            "The worst, the middle and the best test image: the image, the truth, what is read from the last layer.",
            PROBES, "plot_examples", None, "brdyn probe",
        ),
    ),
    "Recursive classifiers": (
        Entry(
            "recursion", "What recursion buys",
            "Accuracy and latency by the number of steps; diamonds stop each image when the halting head is "
            "sure.",
            VITRM, "plot_recursion", recursion("recursion"), "brdyn vitrm-eval",
        ),
        Entry(
            "halting", "Calibration of halting",
            "On the dotted line the halting head is right as often as it says; below, of how many images that "
            "is told.",
            VITRM, "plot_halting", recursion("halting"), "brdyn vitrm-eval",
        ),
        Entry(
            "grid", "A grid of trainings",
            "Accuracy by updates n (down) and supervised steps N_sup (across); cells that are not trained yet "
            "stay empty.",
            VITRM, "plot_grid", grid, "brdyn vitrm-train",
        ),
    ),
}  # fmt: skip
HEAD = """# Gallery

<!-- Written by `python -m analyses.gallery` from recorded results. -->

Every picture that brdyn draws, with a sentence on how to read it. A command writes them beside its numbers, and
`brdyn.plots.draw(brdyn.read("runs/demo"))` draws those of any result again. In all of them a
{term}`token group` has the same colour and marker, grey bands or frames are {term}`phases <phase>`, shaded bands 95 %
intervals, and hatched ones {term}`untrained twins <untrained twin>`. The heading names the model, how many images, and
their size.
"""


def entries() -> list[Entry]:
    return [entry for section in SECTIONS.values() for entry in section]


def page() -> str:
    """docs/gallery.md."""
    lines = [HEAD]
    for title, section in SECTIONS.items():
        lines.append(f"## {title}\n")
        lines += [line for entry in section for line in _told(entry)]
    return "\n".join(lines)


def _told(entry: Entry) -> list[str]:
    by = f"`{entry.name}.png` of `{entry.command}`" if entry.command else "From several results"
    shown = f"\n![{entry.title}](images/gallery/{entry.name}.png)\n" if entry.drawn else ""
    home = getattr(plots, entry.function).__module__
    more = f"[Guide]({entry.guide}), {{func}}`{entry.function} <{home}.{entry.function}>`"
    return [f"### {entry.title}\n{shown}", f"{entry.reading} {by}. {more}.\n"]


def thumbnail(entry: Entry) -> bytes:
    """A small PNG of the picture."""
    assert entry.drawn is not None
    raw, small = BytesIO(), BytesIO()
    entry.drawn().savefig(raw, dpi=DOTS, format="png")
    Image.open(raw).convert("RGB").quantize(COLOURS).save(small, "png", optimize=True)
    return small.getvalue()


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
        if one.drawn is not None:
            (PICTURES / f"{one.name}.png").write_bytes(thumbnail(one))
    (PICTURES / SAMPLES).write_bytes(samples())
    of(OF_PHASES, "similarity")().savefig(FIRST, dpi=140, metadata={"Software": None})
    PAGE.write_text(page())
