"""What the paper claims of stochastic depth, and what the study recorded: docs/guide/stochastic_depth_findings.md.

python -m analyses.stochastic_depth_findings            # rewrite
python -m analyses.stochastic_depth_findings --check    # fail if it differs from the results

Each verdict follows from the numbers by the rule that is stated with it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from analyses.findings import Finding, claims_table, not_recorded
from analyses.recording import RESULTS, write_or_check
from analyses.statistics import Estimate, mean_difference, rank_correlation, together
from analyses.stochastic_depth_cells import Recorded, read_study
from analyses.stochastic_depth_plan import LAST, MIDDLE, MOMENTS, UNTRAINED, Network
from brdyn.classifiers import packaged
from brdyn.classifiers.recipe import BEST
from brdyn.interventions import Surgery
from brdyn.raptor import Evaluation
from brdyn.raptor.partitions import CONTIGUOUS, MAXCUT, SHUFFLE
from brdyn.store import read_json

PAGE = Path(__file__).resolve().parents[1] / "docs" / "guide" / "stochastic_depth_findings.md"
K = 3
PEAK = (0.4, 0.6)
BY_HEART = 0.2  # gained on training images
CLEAR = "the 95 % interval is above 0 (fails: below 0)"
FORMATS = {"r2": "+.3f", "kept": "+.1%", "evenness": "+.3f"}
SHOWN = {"r2": "R²", "kept": "accuracy kept"}  # of the last layer; above chance


def best_networks(study: Recorded) -> pd.DataFrame:
    """Every network at its best epoch."""
    return study.networks[study.networks["moment"] == BEST]


def maxcut_fits(study: Recorded, k: int = K, moment: str = BEST) -> pd.DataFrame:
    """Raptors with max-cut phases, by p and seed."""
    rows = study.fits.query("partition == @MAXCUT and k == @k and moment == @moment")
    return rows.set_index(["p", "seed"]).sort_index()


def accuracy_rises(study: Recorded) -> Finding:
    """Where is the most accurate p?"""
    return _peak("Accuracy of the network rises with p up to about 0.6", best_networks(study), "")


def raptor_accuracy_rises(study: Recorded) -> Finding:
    """Where is the most accurate Raptor?"""
    fits = maxcut_fits(study).reset_index()
    return _peak("Accuracy of its Raptor rises with p up to about 0.6", fits, f"k = {K}, max-cut: ")


def _peak(claim: str, rows: pd.DataFrame, of: str) -> Finding:
    """Does accuracy peak at a large p?"""
    rule = (
        f"{of}some p from {PEAK[0]} to {PEAK[1]} is clearly more accurate than p = 0 (fails: the most accurate p is "
        "another, clearly over the best of these); paired t intervals over seeds"
    )
    if rows.empty:
        return not_recorded(claim, rule)
    right = rows.pivot_table(index="seed", columns="p", values="accuracy").dropna()
    mean = right.mean()
    inside = [p for p in mean.index if PEAK[0] <= p <= PEAK[1]]
    if not inside:
        return not_recorded(claim, rule)
    peak, best = (max(ps, key=lambda p: float(mean[p])) for ps in (inside, list(mean.index)))
    over_zero = mean_difference(right[peak] - right[min(mean.index)])
    below = mean_difference(right[best] - right[peak]) if best not in inside else None
    numbers = ", ".join(f"p={p:g} {value:.1%}" for p, value in mean.items())
    numbers += f"; p={peak:g} over p={min(mean.index):g}: {over_zero.say('+.1%')}"
    if below is not None:
        numbers += f", under p={best:g}: {below.say('+.1%')}"
    fails = below is not None and below.positive is True
    return Finding(claim, rule, numbers, False if fails else True if over_zero.positive else None)


def evenness_grows(study: Recorded) -> Finding:
    """Do phases become as long as each other?"""
    claim = "The phases grow more even with p"
    rule = f"rank correlation of p and the entropy of the phase lengths, k = {K}, over networks: {CLEAR}"
    rows = best_networks(study)
    found = {k: rank_correlation(rows["p"], rows[f"evenness_{k}"]) for k in study.config.phases}
    numbers = "; ".join(f"k={k} {one.say()}" for k, one in found.items())
    mean = rows.groupby("p")[f"evenness_{K}"].mean()
    return Finding(
        claim, rule, f"{numbers}; k={K} from {mean.iloc[0]:.2f} to {mean.iloc[-1]:.2f}", found[K].positive
    )


def similarity_grows(study: Recorded) -> Finding:
    """Do layers become alike?"""
    claim = "Layers grow more similar with p"
    rule = f"rank correlation of p and the mean similarity of pairs of layers: {CLEAR}"
    rows = best_networks(study)
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
        study, "Random contiguous phases are fitted better than shuffled layers", CONTIGUOUS, SHUFFLE
    )


def partition_differences(study: Recorded, better: str, worse: str) -> pd.DataFrame:
    """Per network and k: difference of the means over draws, and how many standard deviations of single draws it is."""
    fits = study.fits[study.fits["moment"] == BEST]
    if not {better, worse} <= set(fits["partition"]):
        return pd.DataFrame(columns=[*SHOWN, *(f"{name}_sd" for name in SHOWN)])
    by = fits.groupby(["p", "seed", "k", "partition"])[list(SHOWN)]
    mean, deviation = (found.unstack("partition") for found in (by.mean(), by.std()))
    rows = {}
    for column in SHOWN:
        rows[column] = mean[column][better] - mean[column][worse]
        pooled = float((deviation[column][worse] ** 2).mean() ** 0.5)  # not a number for single draws
        rows[f"{column}_sd"] = rows[column] / pooled
    return pd.DataFrame(rows).dropna(subset=list(SHOWN))


def _partitions(study: Recorded, claim: str, better: str, worse: str) -> Finding:
    rule = (
        "mean difference over networks (paired; their own draws, and k, averaged), with its 95 % t interval, above 0 "
        "both in R² of the last layer and in the accuracy kept (fails: below 0 in either); sd: of single draws"
    )
    rows = partition_differences(study, better, worse)
    if rows.empty:
        return not_recorded(claim, rule)
    over_networks = rows.groupby(["p", "seed"]).mean()
    found = {column: mean_difference(over_networks[column]) for column in SHOWN}
    deviations = over_networks[[f"{column}_sd" for column in SHOWN]].mean()
    sizes = {
        column: f" ({deviations[f'{column}_sd']:+.1f} sd)" if np.isfinite(deviations[f"{column}_sd"]) else ""
        for column in SHOWN
    }
    numbers = "; ".join(
        f"{SHOWN[column]} {one.say(FORMATS[column])}{sizes[column]}, larger in "
        f"{int((over_networks[column] > 0).sum())} of {len(over_networks)}"
        for column, one in found.items()
    )
    return Finding(claim, rule, numbers, together(one.positive for one in found.values()))


def more_blocks(study: Recorded) -> Finding:
    """Does the third block help, and more than the fourth?"""
    claim = "The third block adds much, and more than the fourth (CIFAR-100 in the paper)"
    rule = (
        "max-cut, paired over networks: accuracy kept clearly rises from k = 2 to 3, by clearly more than from 3 to 4 "
        "(fails: either is clearly below 0)"
    )
    fits = study.fits.query("partition == @MAXCUT and moment == @BEST")
    kept = fits.pivot_table(index=["p", "seed"], columns="k", values="kept").dropna()
    ks = sorted(int(k) for k in kept.columns)
    if kept.empty or not {2, 3, 4} <= set(ks):
        return not_recorded(claim, rule)
    third = mean_difference(kept[3] - kept[2])
    more = mean_difference((kept[3] - kept[2]) - (kept[4] - kept[3]))
    numbers = ", ".join(f"k={k} {kept[k].mean():.1%}" for k in ks)
    numbers += f"; 2 to 3 {third.say('+.1%')}, over 3 to 4 {more.say('+.1%')}"
    return Finding(claim, rule, numbers, together((third.positive, more.positive)))


def structure_predicts(study: Recorded) -> Finding:
    """Across networks: does a better cut mean a better Raptor?"""
    claim = "Networks with clearer phases are fitted better"
    rule = (
        f"rank correlation over networks of the max-cut's z-score with R² of the last layer, k = {K}, and the same "
        "among networks of one p (ranks less the mean of their p): both intervals above 0 (fails: either below 0)"
    )
    fits = maxcut_fits(study)
    models = best_networks(study).set_index(["p", "seed"])
    rows = models.join(fits[["r2", "kept"]], how="inner").reset_index()
    if len(rows) < 3:
        return not_recorded(claim, rule)
    raw = rank_correlation(rows[f"z_{K}"], rows["r2"])
    partial = rank_correlation(rows[f"z_{K}"], rows["r2"], within=rows["p"])
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
        f"z {raw.say()}, within p {partial.say()} (beside it: {beside})",
        together((raw.positive, partial.positive)),
    )


def untrained_easier(study: Recorded) -> Finding:
    """Before and after training."""
    claim = "An untrained network is easier to fit than a trained one"
    rule = (
        f"k = {K}, max-cut: R² of every untrained network is above that of every trained one (fails: below)"
    )
    before, after = (maxcut_fits(study, moment=moment)["r2"] for moment in (UNTRAINED, BEST))
    if before.empty or after.empty:
        return not_recorded(claim, rule)
    numbers = (
        f"{before.min():.3f} to {before.max():.3f} of {len(before)} untrained, {after.min():.3f} to {after.max():.3f} "
        f"of {len(after)} trained"
    )
    return Finding(claim, rule, numbers, above(before, after))


def overfitting_hurts(study: Recorded) -> Finding:
    """The last epoch against the best, where it overfits."""
    claim = "Overfitting makes a network harder to fit"
    rule = (
        f"k = {K}, max-cut: mean fall of R² and of accuracy kept from the best to the last epoch, over networks whose "
        "accuracy meanwhile rose on training and fell on test images: both intervals above 0 (fails: either below 0)"
    )
    first, second = (maxcut_fits(study, moment=moment) for moment in (BEST, LAST))
    last = study.networks[study.networks["moment"] == LAST].set_index(["p", "seed"])
    shared = first.index.intersection(second.index).intersection(last.index[last["overfitted"]])
    if second.empty:
        return not_recorded(claim, rule)
    if shared.empty:
        return Finding(claim, rule, f"none of {len(second)} networks overfitted", None)
    found = {
        column: mean_difference(first.loc[shared, column] - second.loc[shared, column]) for column in SHOWN
    }
    numbers = "; ".join(
        f"{SHOWN[column]} {first.loc[shared, column].mean():.3f} to {second.loc[shared, column].mean():.3f}, fall "
        f"{one.say(FORMATS[column])}"
        for column, one in found.items()
    )
    return Finding(
        claim, rule, f"{numbers} ({len(shared)} overfitted)", together(one.positive for one in found.values())
    )


def memorising_hurts(study: Recorded) -> Finding:
    """The last epoch against the middle, where what is learnt meanwhile is of the training images alone."""
    claim = "A network that learns its training images by heart grows harder to fit"
    rule = (
        f"k = {K}, max-cut: mean fall of R² and of accuracy kept from the middle to the last epoch, over networks that "
        f"meanwhile gained over {BY_HEART:.0%} on training images and under half as much on test images: both "
        "intervals above 0 (fails: either below 0)"
    )
    first, second = (maxcut_fits(study, moment=moment) for moment in (MIDDLE, LAST))
    at = study.networks.reset_index().pivot_table(
        index=["p", "seed"], columns="moment", values=["accuracy", "train_accuracy"]
    )
    gained = {name: at[name][LAST] - at[name][MIDDLE] for name in ("accuracy", "train_accuracy")}
    chosen = at.index[
        (gained["train_accuracy"] > BY_HEART) & (gained["accuracy"] < gained["train_accuracy"] / 2)
    ]
    shared = first.index.intersection(second.index).intersection(chosen)
    if shared.empty:
        return not_recorded(claim, rule)
    found = {
        column: mean_difference(first.loc[shared, column] - second.loc[shared, column]) for column in SHOWN
    }
    trained, tested = (gained[name].loc[shared].mean() for name in ("train_accuracy", "accuracy"))
    numbers = "; ".join(
        f"{SHOWN[column]} {first.loc[shared, column].mean():.3f} to {second.loc[shared, column].mean():.3f}, fall "
        f"{one.say(FORMATS[column])}"
        for column, one in found.items()
    )
    return Finding(
        claim,
        rule,
        f"{numbers} ({len(shared)} networks; training images {trained:+.1%}, test images {tested:+.1%})",
        together(one.positive for one in found.values()),
    )


def not_only_less_trained(study: Recorded) -> Finding:
    """Is a network with a large p easier to fit only because it has learnt less?"""
    claim = "Fidelity rises with p not only because such networks have learnt less"
    rule = (
        f"k = {K}, max-cut: R² of every network whose p is at least {PEAK[1]}, at its best epoch, is above that of "
        "every network with p = 0 in the middle of training (fails: below)"
    )
    moments = study.networks.set_index(["moment", "p", "seed"])["accuracy"]
    least = min(study.config.drop_path)
    early, late = maxcut_fits(study, moment=MIDDLE)["r2"], maxcut_fits(study)["r2"]
    early = early[early.index.get_level_values("p") == least]
    late = late[late.index.get_level_values("p") >= PEAK[1]]
    if early.empty or late.empty:
        return not_recorded(claim, rule)
    right = {
        moment: [moments[(moment, *one)] for one in fits.index]
        for moment, fits in ((MIDDLE, early), (BEST, late))
    }
    numbers = (
        f"{late.min():.3f} to {late.max():.3f} (test accuracy {min(right[BEST]):.1%} to {max(right[BEST]):.1%}) "
        f"against {early.min():.3f} to {early.max():.3f} ({min(right[MIDDLE]):.1%} to {max(right[MIDDLE]):.1%})"
    )
    return Finding(claim, rule, numbers, above(late, early))


def above(first: pd.Series, second: pd.Series) -> bool | None:
    """True if all of the first are above all of the second, False if below, None otherwise."""
    return True if first.min() > second.max() else False if first.max() < second.min() else None


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
OURS = (not_only_less_trained,)
WHERE_OVERFITTED: tuple[Callable[[Recorded], Finding], ...] = (
    overfitting_hurts,
    accuracy_rises,
    evenness_grows,
    similarity_grows,
    fidelity_grows,
    untrained_easier,
)
OURS_OVERFITTED = (memorising_hurts,)
OVERFIT = "overfit"


def network_table(study: Recorded) -> list[str]:
    """Networks at their best epoch, by p."""
    rows = best_networks(study)
    lines = [
        "| p | networks | test accuracy | on training images | best epoch | mean similarity | phases end after, k = 3 "
        "| evenness | z | kept by a Raptor, k = 3 | R², last layer | images/s in training |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    fits = maxcut_fits(study)
    for p, group in rows.groupby("p"):
        own = fits.loc[p] if p in fits.index.get_level_values("p") else None
        ends = "; ".join(", ".join(map(str, places)) for places in group[f"boundaries_{K}"])
        said = f"| {spread(own['kept'], '.1%')} | {spread(own['r2'], '.2f')}" if own is not None else "| | "
        lines.append(
            f"| {p:g} | {len(group)} | {spread(group['accuracy'], '.1%')} | {spread(group['train_accuracy'], '.1%')} "
            f"| {spread(group['epoch'], '.0f')} | {spread(group['mean_similarity'], '.2f')} | {ends} "
            f"| {spread(group[f'evenness_{K}'], '.2f')} | {spread(group[f'z_{K}'], '.2f')} {said} "
            f"| {group['images_per_second'].mean():.0f} |"
        )
    return lines


def moment_table(study: Recorded) -> list[str]:
    """Networks along their training."""
    rows = study.networks.reset_index()
    shown = study.fits[study.fits["moment"] != BEST]["p"].unique()
    lines = [
        "| p | moment | epoch | test accuracy | on training images | mean similarity | evenness | z | "
        "R² of a Raptor, k = 3 | accuracy kept |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for p in sorted(shown):
        for moment in MOMENTS:
            group = rows[(rows["p"] == p) & (rows["moment"] == moment)]
            if group.empty:  # before training, other p are the same network
                continue
            fits = maxcut_fits(study, moment=moment)
            own = fits.loc[p] if p in fits.index.get_level_values("p") else None
            said = f"{spread(own['r2'], '.2f')} | {spread(own['kept'], '.1%')}" if own is not None else " | "
            lines.append(
                f"| {p:g} | {moment} | {spread(group['epoch'], '.0f')} | {spread(group['accuracy'], '.1%')} "
                f"| {spread(group['train_accuracy'], '.1%')} | {spread(group['mean_similarity'], '.2f')} "
                f"| {spread(group[f'evenness_{K}'], '.2f')} | {spread(group[f'z_{K}'], '.2f')} | {said} |"
            )
    return lines


def spread(values: pd.Series, form: str) -> str:
    """Mean, and standard deviation where there are several."""
    if values.isna().all():
        return ""
    return f"{values.mean():{form}}" + (f" ± {values.std():{form}}" if len(values) > 1 else "")


def packaged_network(results: Path = RESULTS) -> list[str]:
    """What `brdyn interventions` and `brdyn raptor-eval` say of the network that comes with the package."""
    name = packaged.NAME
    surgery = Surgery.read(results / "interventions" / name)
    evaluation = Evaluation.read(results / "raptor" / f"{name}_eval")
    fit = read_json(
        results / "raptor" / name / "fit.json", "a fit of brdyn raptor-fit", ("images_seen", "options")
    )
    recorded = read_json(
        results / "interventions" / name / "interventions.json", "a result of brdyn interventions"
    )
    intact = surgery.intact_accuracy
    assert intact is not None
    deleted = surgery.rows("delete", "head", "accuracy").sort_values("mean")
    (worst,), (best,) = deleted["layers"].iloc[0], deleted["layers"].iloc[-1]
    swapped = surgery.matrix("swap", "head", "accuracy")
    pairs = np.triu_indices(surgery.layers, 1)
    same = surgery.phases.labels[pairs[0]] == surgery.phases.labels[pairs[1]]
    tests = "; ".join(
        f"{readout} {test.within:.2f} within, {test.across:.2f} across (p = {test.p_contiguous:.2f})"
        for readout, test in surgery.tests.items()
        if test is not None
    )
    head = evaluation.fidelity.head()
    ours, theirs = head["accuracy"], head["teacher_accuracy"]
    assert ours is not None
    assert theirs is not None
    blocks = fit["options"]["assignment"]
    ends = ", ".join(str(layer) for layer in range(1, len(blocks)) if blocks[layer] != blocks[layer - 1])
    probing = (
        {row["probe"]: row for row in evaluation.probing.to_dict()["ratios"]} if evaluation.probing else {}
    )
    kept = "".join(f"; a {probe} probe keeps {row['ratio']:.1%}" for probe, row in probing.items())
    return [
        f"## `{name}`, the packaged network",
        "",
        f"- Intact, it is right on {intact:.1%} of {recorded['n_images']:,} test images. One layer deleted: from "
        f"{deleted['mean'].iloc[0]:.1%} (layer {worst})",
        f"  to {deleted['mean'].iloc[-1]:.1%} (layer {best}).",
        f"- Two layers swapped: {swapped[pairs][same].mean():.1%} within one of its {surgery.phases.k} phases, "
        f"{swapped[pairs][~same].mean():.1%} across.",
        f"  Relative error: {tests}; p against other contiguous phases.",
        f"- A Raptor of {len(set(blocks))} blocks (phases end after {ends}; {fit['images_seen']:,} images seen): "
        f"{ours:.1%} by its head, against {theirs:.1%};",
        f"  R² of the last layer {evaluation.fidelity.curve('r2').iloc[-1]:.2f}, least "
        f"{evaluation.fidelity.curve('r2').min():.2f}{kept}.",
        "",
        f"Recorded in `analyses/results/interventions/{name}/` and `analyses/results/raptor/{name}*/`.",
        "",
    ]


def where_overfitted(study: Recorded) -> list[str]:
    """Of networks that see few images for long."""
    config, origin = study.config, study.provenance
    images = (config.train_images or 0) - config.held_out
    return [
        "## Where networks overfit",
        "",
        f"{len(best_networks(study))} networks of the reduced study's kind, trained for {config.training['epochs']} "
        f"epochs on {images:,} images that are not augmented",
        f"(`analyses/stochastic_depth_{config.name}.yaml`; recorded in "
        f"`analyses/results/stochastic_depth/{config.name}/`,",
        f"{origin['date'][:10]}, {origin['device']}).",
        "",
        *moment_table(study),
        "",
        *claims_table(
            (make(study) for make in WHERE_OVERFITTED), "claim (Jacobs et al.), where networks overfit"
        ),
        "",
        *claims_table((make(study) for make in OURS_OVERFITTED), "claim (ours), where networks overfit"),
        "",
    ]


def page(study: Recorded, packaged_results: list[str], overfitted: Recorded | None = None) -> str:
    """The page, as Markdown."""
    config, origin = study.config, study.provenance
    network, training, settings = config.network, config.training, config.raptor["settings"]
    seen = (settings["stage1_steps"] + settings["stage2_steps"]) * settings["batch_size"]
    networks = best_networks(study)
    hours = (networks["train_seconds"].sum() + study.fits["seconds"].sum()) / 3600
    images = f"{config.train_images:,}" if config.train_images else "all"
    right = {Network(p=row["p"], seed=row["seed"]): row["accuracy"] for _, row in networks.iterrows()}
    planned = sum(1 for _ in config.cells(config.followed(right)))
    fits = f"{len(study.fits)}" + (f" of {planned} planned" if len(study.fits) < planned else "")
    augmented = any(training.get(name, 1) for name in ("operations", "mixup", "cutmix"))
    lines = [
        "# Stochastic depth, recorded",
        "",
        "<!-- written by `python -m analyses.stochastic_depth_findings` from the recorded results; do not edit -->",
        "",
        f"{len(networks)} ViTs of {network['depth']} layers, width {network['width']}, {network['heads']} heads, patch "
        f"{network['patch']}, trained from scratch on",
        f"{images} images of CIFAR-10 (JPEG-recompressed), {config.held_out} of them held out to choose the best "
        f"epoch, for {training['epochs']} epochs,",
        f"{'with' if augmented else 'without'} RandAugment, Mixup or CutMix; {fits} Raptors of them, each "
        f"fitted with {seen:,} images.",
        f"{hours:.1f} hours of work in all on {origin['device']}.",
        *(REDUCED if config.name != "gpu" else ()),
        "",
        "## Networks",
        "",
        *network_table(study),
        "",
        "± standard deviation over seeds. Evenness: entropy of the phase lengths over its largest. z: standard "
        "deviations of the cut",
        "above random contiguous segmentations. Kept: accuracy by the network's own head of a Raptor's last state,",
        "over that of the network, both above chance.",
        "",
        "## Along training",
        "",
        *moment_table(study),
        "",
        "## The paper's claims",
        "",
        *claims_table((make(study) for make in FINDINGS), "claim (Jacobs et al.)"),
        "",
        "## Or is it something else?",
        "",
        *claims_table((make(study) for make in OURS), "claim (ours)"),
        "",
        "Intervals: of correlations, bootstrap over networks; of differences, t over networks.",
        *(f"Failed: {name} ({why})." for name, why in study.failed.items()),
        "",
        f"Recorded in `analyses/results/stochastic_depth/{config.name}/`, {origin['date'][:10]}.",
        "",
        *(where_overfitted(overfitted) if overfitted is not None else ()),
        *packaged_results,
    ]
    return "\n".join(lines)


def recorded_page() -> str:
    """The page of what is recorded here."""
    return page(read_study(), packaged_network(), read_study(OVERFIT))


REDUCED = (
    "This is the reduced study (`analyses/stochastic_depth_cpu.yaml`): see how accurate the networks are before",
    "believing what it says of large p. The full one is `analyses/stochastic_depth.yaml`.",
)


def main() -> None:
    """Rewrite, or check."""
    write_or_check(__doc__, lambda: {PAGE: recorded_page()})


if __name__ == "__main__":
    main()
