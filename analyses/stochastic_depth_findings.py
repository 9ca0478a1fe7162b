"""What the paper claims of stochastic depth, and what the study recorded: docs/guide/stochastic_depth_findings.md.

python -m analyses.stochastic_depth_findings            # rewrite
python -m analyses.stochastic_depth_findings --check    # fail if it differs from the results

Each verdict follows from the numbers by the rule that is stated with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import pandas as pd

from analyses.findings import WORDS, Finding, not_recorded
from analyses.recording import write_or_check
from analyses.statistics import Estimate, mean_difference, rank_correlation, ranks_without, together
from analyses.stochastic_depth_cells import Recorded, read_study
from brdyn.classification.kept import BEST

PAGE = Path(__file__).resolve().parents[1] / "docs" / "guide" / "stochastic_depth_findings.md"
MAXCUT, CONTIGUOUS, SHUFFLED = "maxcut", "random-contiguous", "random-shuffle"
K = 3
PEAK = (0.4, 0.6)
CLEAR = "the 95 % interval is above 0 (fails: below 0)"
FORMATS = {"r2": "+.3f", "kept": "+.1%", "evenness": "+.3f"}
SHOWN = {"r2": "R²", "kept": "accuracy kept"}


def best_models(study: Recorded) -> pd.DataFrame:
    """Every network at its best epoch."""
    return study.models[study.models["stage"] == BEST]


def maxcut_fits(study: Recorded, k: int = K, stage: str = BEST) -> pd.DataFrame:
    """Raptors with max-cut phases, by p and seed."""
    rows = study.fits.query("partition == @MAXCUT and k == @k and stage == @stage")
    return rows.set_index(["p", "seed"]).sort_index()


def accuracy_rises(study: Recorded) -> Finding:
    """Where is the most accurate p?"""
    return _peak("Accuracy of the network rises with p up to about 0.6", best_models(study), "")


def raptor_accuracy_rises(study: Recorded) -> Finding:
    """Where is the most accurate Raptor?"""
    fits = maxcut_fits(study).reset_index()
    return _peak("Accuracy of its Raptor rises with p up to about 0.6", fits, f"k = {K}, max-cut: ")


def _peak(claim: str, rows: pd.DataFrame, of: str) -> Finding:
    """Does accuracy peak at a large p?"""
    rule = (
        f"{of}the mean accuracy is highest at p = {PEAK[0]} to {PEAK[1]}, clearly above that at p = 0 (fails: highest "
        "elsewhere)"
    )
    if rows.empty:
        return not_recorded(claim, rule)
    right = rows.pivot_table(index="seed", columns="p", values="accuracy")
    mean = right.mean()
    best, least = max(mean.index, key=lambda p: float(mean[p])), min(mean.index)
    gain = mean_difference((right[best] - right[least]).dropna())
    numbers = ", ".join(f"p={p:g} {value:.1%}" for p, value in mean.items())
    if best != least:
        numbers += f"; the highest over p={least:g}: {gain.say('+.1%')}"
    return Finding(claim, rule, numbers, gain.positive if PEAK[0] <= best <= PEAK[1] else False)


def evenness_grows(study: Recorded) -> Finding:
    """Do phases become as long as each other?"""
    claim = "The phases grow more even with p"
    rule = f"rank correlation of p and the entropy of the phase lengths, k = {K}, over networks: {CLEAR}"
    rows = best_models(study)
    found = {k: rank_correlation(rows["p"], rows[f"evenness_{k}"]) for k in study.config["phases"]}
    numbers = "; ".join(f"k={k} {one.say()}" for k, one in found.items())
    mean = rows.groupby("p")[f"evenness_{K}"].mean()
    return Finding(
        claim, rule, f"{numbers}; k={K} from {mean.iloc[0]:.2f} to {mean.iloc[-1]:.2f}", found[K].positive
    )


def similarity_grows(study: Recorded) -> Finding:
    """Do layers become alike?"""
    claim = "Layers grow more similar with p"
    rule = f"rank correlation of p and the mean similarity of pairs of layers: {CLEAR}"
    rows = best_models(study)
    found = rank_correlation(rows["p"], rows["mean_similarity"])
    mean = rows.groupby("p")["mean_similarity"].mean()
    return Finding(
        claim, rule, f"{found.say()}; from {mean.iloc[0]:.2f} to {mean.iloc[-1]:.2f}", found.positive
    )


def fidelity_grows(study: Recorded) -> Finding:
    """Are networks with large p nearer to recurrent?"""
    claim = "A Raptor's fidelity rises with p"
    rule = (
        f"rank correlation of p with R² of the last layer and with the share of the network's accuracy that is kept, "
        f"k = {K}, max-cut: both intervals above 0 (fails: either below 0)"
    )
    rows = maxcut_fits(study).reset_index()
    if rows.empty:
        return not_recorded(claim, rule)
    found: dict[str, Estimate] = {column: rank_correlation(rows["p"], rows[column]) for column in SHOWN}
    mean = rows.groupby("p")[list(SHOWN)].mean()
    numbers = "; ".join(f"{SHOWN[column]} {one.say()}" for column, one in found.items())
    ends = f"R² from {mean['r2'].iloc[0]:.2f} to {mean['r2'].iloc[-1]:.2f}"
    return Finding(
        claim,
        rule,
        f"{numbers}; {ends}, kept from {mean['kept'].iloc[0]:.1%} to {mean['kept'].iloc[-1]:.1%}",
        together(one.positive for one in found.values()),
    )


def better_than_contiguous(study: Recorded) -> Finding:
    """Max-cut against random contiguous phases."""
    return _partitions(
        study, "Max-cut phases are fitted better than random contiguous ones", MAXCUT, CONTIGUOUS
    )


def better_than_shuffled(study: Recorded) -> Finding:
    """Random contiguous phases against shuffled layers."""
    return _partitions(
        study, "Random contiguous phases are fitted better than shuffled layers", CONTIGUOUS, SHUFFLED
    )


def partition_differences(study: Recorded, better: str, worse: str) -> pd.DataFrame:
    """Per network and k: difference of the means over draws, and how many standard deviations of single draws it is."""
    fits = study.fits[study.fits["stage"] == BEST]
    by = fits.groupby(["p", "seed", "k", "partition"])[list(SHOWN)]
    mean, deviation = (found.unstack("partition") for found in (by.mean(), by.std()))
    rows = {}
    for column in SHOWN:
        if not {better, worse} <= set(mean[column].columns):
            return pd.DataFrame(columns=[*SHOWN, *(f"{name}_sd" for name in SHOWN)])
        rows[column] = mean[column][better] - mean[column][worse]
        pooled = float((deviation[column][worse] ** 2).mean() ** 0.5)  # not a number for single draws
        rows[f"{column}_sd"] = rows[column] / pooled
    return pd.DataFrame(rows).dropna(subset=list(SHOWN))


def _partitions(study: Recorded, claim: str, better: str, worse: str) -> Finding:
    rule = (
        "mean difference over networks (paired, draws averaged), with its 95 % t interval, above 0 both in R² of the "
        "last layer and in the share of accuracy kept (fails: below 0 in either); sd: of single draws"
    )
    rows = partition_differences(study, better, worse)
    if rows.empty:
        return not_recorded(claim, rule)
    over_networks = rows.groupby(["p", "seed"]).mean()
    found = {column: mean_difference(over_networks[column]) for column in SHOWN}
    numbers = "; ".join(
        f"{SHOWN[column]} {one.say(FORMATS[column])} ({over_networks[f'{column}_sd'].mean():+.1f} sd), larger in "
        f"{int((over_networks[column] > 0).sum())} of {len(over_networks)}"
        for column, one in found.items()
    )
    return Finding(claim, rule, numbers, together(one.positive for one in found.values()))


def more_blocks(study: Recorded) -> Finding:
    """Where does a further block help most?"""
    claim = "Two blocks are already good, and the third adds most (CIFAR-100 in the paper)"
    rule = "the gain in accuracy kept from k = 2 to 3 is clearly above 0 (fails: below), and larger than from 3 to 4"
    fits = study.fits.query("partition == @MAXCUT and stage == @BEST")
    kept = fits.pivot_table(index=["p", "seed"], columns="k", values="kept").dropna()
    ks = [int(k) for k in kept.columns]
    if kept.empty or not {2, 3, 4} <= set(ks):
        return not_recorded(claim, rule)
    gains = {(low, high): mean_difference(kept[high] - kept[low]) for low, high in pairwise(sorted(ks))}
    numbers = ", ".join(f"k={k} {value:.1%}" for k, value in kept.mean().items())
    numbers += "; " + ", ".join(f"{low} to {high} {one.say('+.1%')}" for (low, high), one in gains.items())
    third = gains[2, 3].positive
    return Finding(claim, rule, numbers, third if not third else gains[2, 3].value > gains[3, 4].value)


def structure_predicts(study: Recorded) -> Finding:
    """Across networks: does a better cut mean a better Raptor?"""
    claim = "Networks with clearer phases are fitted better"
    rule = (
        f"rank correlation over networks of the max-cut's z-score with R² of the last layer, k = {K}, also with the "
        "effect of p taken out of both: both intervals above 0 (fails: either below 0)"
    )
    fits = maxcut_fits(study)
    models = best_models(study).set_index(["p", "seed"])
    rows = models.join(fits[["r2", "kept"]], how="inner").reset_index()
    if len(rows) < 3:
        return not_recorded(claim, rule)
    raw = rank_correlation(rows[f"z_{K}"], rows["r2"])
    partial = rank_correlation(ranks_without(rows[f"z_{K}"], rows["p"]), ranks_without(rows["r2"], rows["p"]))
    others = {
        "cut": rows[f"cut_{K}"],
        "cut over a drift's": rows[f"over_drift_{K}"],
        "evenness": rows[f"evenness_{K}"],
        "mean similarity": rows["mean_similarity"],
    }
    beside = "; ".join(
        f"{name} {rank_correlation(values, rows['r2']).say()}" for name, values in others.items()
    )
    return Finding(
        claim,
        rule,
        f"z {raw.say()}, without p {partial.say()} (beside it: {beside})",
        together((raw.positive, partial.positive)),
    )


def untrained_easier(study: Recorded) -> Finding:
    """Before and after training."""
    claim = "An untrained network is easier to fit than a trained one"
    return _stages(study, claim, "untrained", BEST, ("r2",))


def overfitting_hurts(study: Recorded) -> Finding:
    """The last epoch against the best."""
    claim = "Overfitting makes a network harder to fit"
    return _stages(study, claim, BEST, "last", ("r2", "kept"))


def _stages(study: Recorded, claim: str, better: str, worse: str, columns: Sequence[str]) -> Finding:
    rule = (
        f"k = {K}, max-cut: mean difference of {' and '.join(SHOWN[column] for column in columns)} between the "
        f"{better} and the {worse} network, over networks: {CLEAR}"
    )
    first, second = (maxcut_fits(study, stage=stage) for stage in (better, worse))
    shared = first.index.intersection(second.index)
    if shared.empty:
        return not_recorded(claim, rule)
    found = {
        column: mean_difference(first.loc[shared, column] - second.loc[shared, column]) for column in columns
    }
    numbers = "; ".join(
        f"{SHOWN[column]} {first.loc[shared, column].mean():.3f} against {second.loc[shared, column].mean():.3f}, "
        f"{one.say(FORMATS[column])}"
        for column, one in found.items()
    )
    return Finding(
        claim, rule, f"{numbers} ({len(shared)} networks)", together(one.positive for one in found.values())
    )


FINDINGS: tuple[Callable[[Recorded], Finding], ...] = (
    accuracy_rises,
    evenness_grows,
    similarity_grows,
    fidelity_grows,
    raptor_accuracy_rises,
    better_than_contiguous,
    better_than_shuffled,
    more_blocks,
    structure_predicts,
    untrained_easier,
    overfitting_hurts,
)


def network_table(study: Recorded) -> list[str]:
    """Networks at their best epoch, by p."""
    rows = best_models(study)
    lines = [
        "| p | networks | test accuracy | on training images | best epoch | mean similarity | phases end after, k = 3 "
        "| evenness | z | kept by a Raptor, k = 3 | R², last layer |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    fits = maxcut_fits(study)
    for p, group in rows.groupby("p"):
        own = fits.loc[p] if p in fits.index.get_level_values("p") else None
        ends = "; ".join(", ".join(map(str, places)) for places in group[f"boundaries_{K}"])
        said = (
            f"| {spread(own['kept'], '.1%')} | {spread(own['r2'], '.2f')} |" if own is not None else "| | |"
        )
        lines.append(
            f"| {p:g} | {len(group)} | {spread(group['accuracy'], '.1%')} | {spread(group['train_accuracy'], '.1%')} "
            f"| {spread(group['epoch'], '.0f')} | {spread(group['mean_similarity'], '.2f')} | {ends} "
            f"| {spread(group[f'evenness_{K}'], '.2f')} | {spread(group[f'z_{K}'], '.2f')} {said}"
        )
    return lines


def stage_table(study: Recorded) -> list[str]:
    """Networks along their training."""
    rows = study.models.reset_index()
    shown = rows[rows["stage"] != BEST]["p"].unique()
    lines = [
        "| p | moment | epoch | test accuracy | on training images | mean similarity | evenness | z | "
        "R² of a Raptor, k = 3 | accuracy kept |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for p in sorted(shown):
        for stage in ("untrained", "middle", BEST, "last"):
            group = rows[(rows["p"] == p) & (rows["stage"] == stage)]
            fits = maxcut_fits(study, stage=stage)
            own = fits.loc[p] if p in fits.index.get_level_values("p") else None
            said = f"{spread(own['r2'], '.2f')} | {spread(own['kept'], '.1%')}" if own is not None else " | "
            lines.append(
                f"| {p:g} | {stage} | {spread(group['epoch'], '.0f')} | {spread(group['accuracy'], '.1%')} "
                f"| {spread(group['train_accuracy'], '.1%')} | {spread(group['mean_similarity'], '.2f')} "
                f"| {spread(group[f'evenness_{K}'], '.2f')} | {spread(group[f'z_{K}'], '.2f')} | {said} |"
            )
    return lines


def spread(values: pd.Series, form: str) -> str:
    """Mean, and standard deviation where there are several."""
    if values.isna().all():
        return ""
    return f"{values.mean():{form}}" + (f" ± {values.std():{form}}" if len(values) > 1 else "")


def page(study: Recorded) -> str:
    """The page, as Markdown."""
    config, origin = study.config, study.provenance
    network, training, raptor = config["network"], config["training"], config["raptor"]
    steps = raptor["settings"]["stage1_steps"] + raptor["settings"]["stage2_steps"]
    seen = steps * raptor["settings"]["batch_size"]
    hours = (best_models(study)["train_seconds"].sum() + study.fits["seconds"].sum()) / 3600
    images = f"{config['train_images']:,}" if config["train_images"] else "All 50,000"
    lines = [
        "# Stochastic depth, recorded",
        "",
        "<!-- written by `python -m analyses.stochastic_depth_findings` from the recorded results; do not edit -->",
        "",
        f"{len(best_models(study))} ViTs of {network['depth']} layers, width {network['width']}, "
        f"{network['heads']} heads, patch {network['patch']}, trained from scratch on {images}",
        f"images of CIFAR-10 (JPEG-recompressed; {config['held_out']} of them held out to choose the best epoch) for "
        f"{training['epochs']} epochs, crop and flip alone;",
        f"{len(study.fits)} Raptors of them, {seen:,} images seen in each. {hours:.1f} hours of work in all on "
        f"{origin['device']}.",
        *(REDUCED if config["name"] != "gpu" else ()),
        "",
        "## Networks",
        "",
        *network_table(study),
        "",
        "± standard deviation over seeds. Evenness: entropy of the phase lengths over its largest. z: standard "
        "deviations of the cut",
        "above random contiguous segmentations. Kept: accuracy by the network's own head of a Raptor's last state,",
        "over that of the network.",
        "",
        "## Along training",
        "",
        *stage_table(study),
        "",
        "## The paper's claims",
        "",
        "| claim (Jacobs et al.) | rule | measured | here |",
        "| --- | --- | --- | --- |",
    ]
    for make in FINDINGS:
        row = make(study)
        lines.append(f"| {row.claim} | {row.rule} | {row.numbers} | {WORDS[row.holds]} |")
    lines += [
        "",
        "Intervals: of correlations, bootstrap over networks; of differences, t over networks.",
        *(f"Failed: {name} ({why})." for name, why in study.failed.items()),
        "",
        f"Recorded in `analyses/results/stochastic_depth/{config['name']}/`, {origin['date'][:10]}.",
        "",
    ]
    return "\n".join(lines)


REDUCED = (
    "This is the reduced study (`analyses/stochastic_depth_cpu.yaml`); the full one is "
    "`analyses/stochastic_depth.yaml`.",
    "Networks with a large p are far from trained after so few epochs, and Raptors from fitted after so few images.",
)


def main() -> None:
    """Rewrite, or check."""
    write_or_check(__doc__, lambda: {PAGE: page(read_study())})


if __name__ == "__main__":
    main()
