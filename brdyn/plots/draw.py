"""All the pictures of a result, by the name of their file."""

from __future__ import annotations

from functools import singledispatch

from matplotlib.figure import Figure

from brdyn.classifiers import ClassifierEvaluation, ClassifierTraining, Grid
from brdyn.interventions import Repair, Splice, Surgery
from brdyn.interventions.splice_sums import R2, SKILL
from brdyn.interventions.surgery_result import PAIRED
from brdyn.measures.basins import UNITS
from brdyn.measures.dynamics import Dynamics
from brdyn.measures.readout import UNITS as READOUT
from brdyn.measures.readout import deciding_state
from brdyn.phases import LayerSimilarity, Phases
from brdyn.plots.basins import plot_basins, plot_projection
from brdyn.plots.branches import RESCALING, SHARE, plot_branches
from brdyn.plots.dynamics import plot_panels
from brdyn.plots.fixed_points import plot_fixed_points
from brdyn.plots.interventions import (
    plot_final_angles,
    plot_growth,
    plot_layers,
    plot_matrices,
    plot_repair,
)
from brdyn.plots.modes import plot_mode_errors, plot_spectra
from brdyn.plots.phases import plot_gain_curve, plot_similarity, plot_stability, plot_steps
from brdyn.plots.probes import plot_examples, plot_layer_scores
from brdyn.plots.ranks import plot_ranks
from brdyn.plots.raptor import plot_fidelity, plot_fit, plot_skill
from brdyn.plots.readout import plot_readout
from brdyn.plots.spectra import plot_coupling, plot_exponents
from brdyn.plots.splice import plot_calibration, plot_exchange, plot_spans
from brdyn.plots.vitrm import plot_grid, plot_halting, plot_recursion
from brdyn.probes import LayerProbe
from brdyn.raptor import Evaluation, Fit, RankCurve
from brdyn.raptor.model import spans
from brdyn.result import Result

# Curves that belong into one picture; any other statistic gets one of its own.
PANELS = {
    "convergence": {"directional convergence": ["convergence"]},
    "speed": {"angular speed": ["speed"], "turning": ["turning"]},
    "norm": {"token norm": ["norm"]},
    "estimation": {"mean": ["estimation_mean"], "variance": ["estimation_variance"]},
    "update_rank": {
        "effective rank": ["effective_rank", "tangent_effective_rank"],
        "stable rank": ["stable_rank", "tangent_stable_rank"],
        "coherence": ["coherence"],
    },
    "branches_cosine": {
        "attention with the state": ["attention_cosine"],
        "MLP with the state": ["mlp_cosine"],
        "attention with MLP": ["branches_cosine"],
    },
    "branches_rank": {
        name.replace("_", " "): [f"attention_{name}", f"mlp_{name}"]
        for name in ("effective_rank", "stable_rank", "coherence")
    },
}
LOGARITHMIC = ("norm",)
# Hardly differs from the coherence, two curves that look like one; and those of spectra, which have their own.
IN_NO_PICTURE = {"cosine_to_mean", "leading_growth", "norm_growth", "leading_singular_value"}


def heading(result: Result, what: str = "") -> str:
    """Whose picture it is: the model, what is shown of it, and in a line of its own how many images of which size."""
    return "\n".join(filter(None, (result.title + what, result.caption)))


@singledispatch
def draw(result: Result) -> dict[str, Figure]:
    """Every picture that there is of a result.

    Parameters
    ----------
    result : Result
        Of any kind: what was measured here, or what :func:`brdyn.read` read.

    Returns
    -------
    dict of str to Figure
        By the name that its file would have.

    Examples
    --------
    >>> sorted(brdyn.plots.draw(phases))
    ['gain_curve', 'similarity', 'stability', 'steps']
    """
    del result
    return {}


@draw.register
def _(result: LayerSimilarity) -> dict[str, Figure]:
    from brdyn.phases import segment

    cut = segment(result, 1)
    return {"similarity": plot_similarity(result.matrix, cut, kind=result.kind, title=heading(result))}


@draw.register
def _(result: Phases) -> dict[str, Figure]:
    title, pictures = heading(result), {}
    if result.evidence is not None:
        pictures["steps"] = plot_steps(result.evidence, title=title)
    if result.similarity is not None:
        kind = result.similarity.kind
        pictures["similarity"] = plot_similarity(result.similarity.matrix, result, kind=kind, title=title)
    unit = "none (not kept)" if result.similarity is None else result.similarity.unit
    pictures["gain_curve"] = plot_gain_curve(result, title=title)
    pictures["stability"] = plot_stability(result, unit=unit, title=title)
    return pictures


@draw.register
def _(result: Dynamics) -> dict[str, Figure]:
    table, phases, title, null = result.table, result.phases, heading(result), result.null
    drawn = {name for panels in PANELS.values() for names in panels.values() for name in names}
    drawn |= {*UNITS, *READOUT, SHARE, RESCALING, *IN_NO_PICTURE}
    others = {name: {name: [name]} for name in result.statistics if name not in drawn}
    pictures = {}
    for name, wanted in {**PANELS, **others}.items():
        there = {heading: names for heading, names in wanted.items() if result.groups(names[0])}
        if there:
            pictures[name] = plot_panels(table, there, phases, title=title, log=name in LOGARITHMIC, null=null)
    if result.groups(SHARE):
        pictures["branches"] = plot_branches(table, phases, title=title, null=null)
    if (decided := deciding_state(table)) is not None:
        pictures["readout"] = plot_readout(table, phases, title=title, decided=decided, null=null)
    if result.basins is not None:
        pictures["basins"] = plot_basins(result.basins, phases, title=title, null=null)
        pictures["basins_projection"] = plot_projection(result.basins, title=title)
    if result.modes is not None:
        pictures["modes"] = plot_mode_errors(result.modes, phases, title=title, null=null)
        pictures["spectrum"] = plot_spectra(result.modes, phases, title=title)
    if result.spectra is not None:
        pictures["exponents"] = plot_exponents(result.spectra, phases, title=title, null=null)
        if len(result.spectra.pairs):
            pictures["coupling"] = plot_coupling(result.spectra, phases, title=title)
    return pictures


@draw.register
def _(result: Repair) -> dict[str, Figure]:
    title, phases, pictures = heading(result), result.phases, {}
    largest = result.angles["eps"].max()
    if (result.angles.loc[result.angles["eps"] == largest, "mean"] > 0).any():
        pictures["repair"] = plot_repair(result, phases, eps=largest, title=title)
    pictures["final_angle"] = plot_final_angles(result, phases, title=title)
    if len(result.growth):
        pictures["growth"] = plot_growth(result, phases, title=title)
    return pictures


@draw.register
def _(result: Surgery) -> dict[str, Figure]:
    done = set(result.table["kind"])
    pictures = {
        kind: plot_matrices(result, kind, title=heading(result, f": {kind}")) for kind in PAIRED if kind in done
    }
    if done - set(PAIRED):
        pictures["layers"] = plot_layers(result, title=heading(result))
    return pictures


@draw.register
def _(result: Splice) -> dict[str, Figure]:
    title, pictures = heading(result), {}
    if len(result.spanning) > 1:
        pictures["skill"] = plot_spans(result, SKILL, title=title)
    pictures["fidelity"] = plot_spans(result, R2, title=title)
    if len(result.work):
        pictures["exchange"] = plot_exchange(result, title=title)
    if result.calibration is not None:
        pictures["calibration"] = plot_calibration(result, title=title)
    return pictures


@draw.register
def _(result: LayerProbe) -> dict[str, Figure]:
    title = heading(result, f": {result.task}").removeprefix(": ")
    pictures = {"scores": plot_layer_scores(result, title=title)}
    if len(result.examples):
        pictures["examples"] = plot_examples(result, title=title)
    return pictures


@draw.register
def _(result: Fit) -> dict[str, Figure]:
    return {"fit": plot_fit(result.histories, title=f"Raptor of {heading(result)}", batch_size=result.batch_size)}


@draw.register
def _(result: Evaluation) -> dict[str, Figure]:
    blocks = spans(result.assignment)
    title = f"{result.brief()}\n{result.caption}"
    table = result.fidelity.table
    pictures = {"fidelity": plot_fidelity(table, blocks, title=title)}
    if result.fidelity.baselines is not None:
        pictures["skill"] = plot_skill(table, blocks, title=title)
    if result.beyond is not None:
        pictures["fixed_points"] = plot_fixed_points(result.beyond, title=title)
    return pictures if result.layers is None else {**pictures, **draw(result.layers)}


@draw.register
def _(result: RankCurve) -> dict[str, Figure]:
    return {"ranks": plot_ranks(result.table, title=heading(result))}


@draw.register
def _(result: ClassifierTraining) -> dict[str, Figure]:
    watched = f"accuracy on {result.watched} images"
    return {"train": plot_fit({1: result.history}, title=heading(result), watched=watched)}


@draw.register
def _(result: ClassifierEvaluation) -> dict[str, Figure]:
    found, title = result.recursion, heading(result)
    if found is None:
        return {}
    past = {} if result.beyond is None else {"fixed_points": plot_fixed_points(result.beyond, title=title)}
    return {
        "recursion": plot_recursion(found.steps, found.adaptive, title=title),
        "halting": plot_halting(found.halting, title=title),
        **past,
    }


@draw.register
def _(result: Grid) -> dict[str, Figure]:
    return (
        {"grid": plot_grid(result.cells, title=heading(result, "accuracy (%)"))}
        if result.cells["accuracy"].notna().any()
        else {}
    )
