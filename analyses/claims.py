"""Every published claim: who makes it, the published number, what tests it here, and why where it does not hold.

The page made of them is `analyses.evidence`. Findings, and the rules behind their verdicts, are those of the
`*_findings` modules and of the functions in `OWN`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch

from analyses import findings
from analyses import raptor_findings as raptors
from analyses import stochastic_depth_findings as depth
from analyses import vitrm_findings as vitrms
from analyses.findings import WORDS, Finding
from analyses.raptor_cells import Cells, read_cells
from analyses.recording import OFFLINE, RESULTS
from analyses.stochastic_depth_cells import Recorded, read_study
from analyses.vitrm_grid import Grid, read_grid
from brdyn.classifiers import packaged
from brdyn.classifiers.config import ViTRMConfig
from brdyn.classifiers.recipe import VITRM
from brdyn.classifiers.vitrm import ViTRM
from brdyn.errors import UsageError
from brdyn.interventions import Surgery

NOT_TESTED, UNKNOWN = "not tested", "Not known"
JACOBS, AKAZAN, ASWANI, GREFF, VEIT = (
    "Jacobs et al.", "Akazan et al.", "Aswani and Jabari", "Greff et al.", "Veit et al.",
)  # fmt: skip
PARAMETERS = {10: 3_624_971, 100: 3_659_621}  # published, by number of classes
CLASSES = 10  # of the packaged network


class Records(NamedTuple):
    """What is recorded, by the name that claims give it."""

    offline: findings.Results
    raptor: Cells
    vits: Recorded
    overfit: Recorded
    vitrm: vitrms.Results
    at_size: dict[str, Any] | None
    grid: Grid | None
    packaged: Surgery


class Claim(NamedTuple):
    """A published claim.

    Attributes
    ----------
    source : str
        Authors of the paper.
    finding : callable, optional
        None where nothing here tests the claim.
    published : str
        The published numbers; empty where there is a direction alone.
    why : str or callable
        Why it does not hold, cannot be told or is not tested; shown only then.
    study : str
        Field of :class:`Records` that the finding is made from; empty for one that needs none.
    text : str
        The claim, where there is no finding to say it.
    """

    source: str
    finding: Callable[[Any], Finding] | None = None
    published: str = ""
    why: str | Callable[[Records], str] = UNKNOWN
    study: str = ""
    text: str = ""

    def found(self, records: Records) -> Finding | None:
        """What the records say."""
        return self.finding(getattr(records, self.study, None)) if self.finding else None


class Topic(NamedTuple):
    """Claims under one heading."""

    title: str
    note: str
    claims: tuple[Claim, ...]


def load() -> Records:
    """Read all recorded results.

    Raises
    ------
    UsageError
        If a study has none; only that of networks which overfit may be missing.
    """
    vits = read_study()
    return Records(
        findings.load(),
        read_cells(),
        vits,
        _where_overfitted(vits),
        vitrms.load(),
        vitrms.read_at_size(),
        read_grid(),
        Surgery.read(RESULTS / "interventions" / packaged.NAME),
    )


def _where_overfitted(otherwise: Recorded) -> Recorded:
    try:
        study = read_study(depth.OVERFIT)
    except UsageError:
        return otherwise
    return otherwise if study.fits.empty else study


def beyond_drift(results: findings.Results) -> Finding:
    """Are there phases that a steady drift would not give?"""
    found = {k: results.phases.segmentations[k] for k in range(2, 6)}
    excess = {k: 100 * (one.cut_share - one.drift_share) for k, one in found.items()}
    stable = min(min(one.stability or (0.0,)) for one in found.values())
    verdicts = [value > 0 for value in excess.values()]
    return Finding(
        "The layers of trained ViTs fall into few contiguous phases",
        "the share of the dissimilarity that is cut exceeds that of a structureless drift for every k from 2 to 5 "
        "(fails: for none)",
        f"share cut, over a drift's: {', '.join(f'k={k} {value:+.1f}' for k, value in excess.items())} points; "
        f"each boundary in {'all' if stable == 1 else f'at least {stable:.0%} of'} bootstrap samples of images",
        True if all(verdicts) else None if any(verdicts) else False,
    )


def deletions(surgery: Surgery) -> Finding:
    """Does a network bear the loss of any one layer?"""
    right = surgery.rows("delete", "head", "accuracy").sort_values("mean")
    worst, low, high = (float(right[column].iloc[0]) for column in ("mean", "low", "high"))
    intact = surgery.intact_accuracy
    assert intact is not None
    return Finding(
        "Deleting any one layer has little effect on accuracy",
        "accuracy stays nearer to the intact network's than to chance, whichever layer is deleted",
        f"`{packaged.NAME}`: intact {intact:.1%}, worst {worst:.1%} [{low:.1%}, {high:.1%}] "
        f"(layer {right['layers'].iloc[0][0]}), best {right['mean'].iloc[-1]:.1%}",
        worst - 1 / CLASSES > (intact - 1 / CLASSES) / 2,
    )


def sizes(_: None) -> Finding:
    """Is it their network?"""
    with torch.device("meta"):
        counts = {
            classes: sum(parameter.numel() for parameter in ViTRM(ViTRMConfig(classes=classes)).parameters())
            for classes in PARAMETERS
        }
    return Finding(
        "ViTRM has 3.6 and 3.7 million parameters with 10 and 100 classes",
        "the network of the published configuration has exactly the published numbers of parameters",
        " and ".join(f"{count:,}" for count in counts.values()),
        counts == PARAMETERS,
    )


OWN = (beyond_drift, deletions, sizes)


def verdict(found: Finding | None) -> str:
    """In words; a finding without a number measured nothing."""
    if found is None or (found.holds is None and not any(sign.isdigit() for sign in found.numbers)):
        return NOT_TESTED
    return WORDS[found.holds]


def untested(source: str, text: str, published: str, why: str) -> Claim:
    """A claim that nothing here tests."""
    return Claim(source, None, published, why, text=text)


def unequal_images(records: Records) -> str:
    """Why phases of the offline model are in doubt."""
    one, other = records.offline.phases, records.raptor.phases
    shift = max(
        abs(here - there)
        for k in range(2, 6)
        for here, there in zip(one.with_k(k).boundaries, other.with_k(k).boundaries, strict=True)
    )
    return (
        f"On CIFAR-10 its boundaries are at most {shift} layer{'s' * (shift != 1)} off those on photographs, but "
        "similarity falls with distance nearly as in a steady drift"
    )


def short_fits(records: Records) -> str:
    """Why Raptors of the offline model keep less."""
    cells = records.raptor
    if raptors.WHOLE not in cells.summary.index:
        return UNKNOWN
    fit = cells.summary.loc[raptors.WHOLE]
    said = f"Fits saw {fit['images_seen']:,} images, the published ones {raptors.PUBLISHED_IMAGES:,}"
    if raptors.longer(cells).holds:
        long = cells.summary.loc[f"{raptors.WHOLE}_longer"]
        said += (
            f". That is part of the cause: four times as long, k = 3 keeps {long['kept']:.1%} [{long['kept_low']:.1%}, "
            f"{long['kept_high']:.1%}]"
        )
    return f"{said}. Another teacher and other images are not ruled out"


def weak_end(records: Records) -> str:
    """Why the last layers of a Raptor are not followed."""
    cells = records.raptor.summary
    names = [raptors.WHOLE, f"{raptors.WHOLE}_longer"]
    if not is_reduced(records.raptor.provenance) or not set(names) <= set(cells.index):
        return UNKNOWN
    fit, long = (cells.loc[name] for name in names)
    return (
        "Weakest in the middle, but not recovered after it: errors add up in fits this short. R² is "
        f"{fit['r2_one_step']:.2f} one step at a time, {fit['r2']:.2f} at the last layer, {long['r2']:.2f} there after "
        "four times as long. cls is fitted worst"
    )


def is_reduced(provenance: Mapping[str, Any]) -> bool:
    """Whether a study is the reduced one, of a CPU: reasons that were found in it are of it alone."""
    return "CPU" in provenance.get("device", "")


def of_reduced_raptors(text: str) -> Callable[[Records], str]:
    """A reason that was found in the reduced study of Raptors; it names the number of images probes are tested on."""

    def say(records: Records) -> str:
        if not is_reduced(records.raptor.provenance):
            return UNKNOWN
        return text.format(images=records.raptor.size["probe_test"])

    return say


def small_study(
    text: str, where_overfitted: Callable[[Recorded], Finding] | None = None
) -> Callable[[Records], str]:
    """A reason in the reduced study of stochastic depth, with its numbers, and what networks that overfit say."""

    def say(records: Records) -> str:
        config, networks = records.vits.config, depth.best_networks(records.vits)
        if config.name != "cpu":
            return UNKNOWN
        said = text.format(
            images=(config.train_images or 0) - config.held_out,
            epochs=config.training["epochs"],
            seeds=config.seeds,
            draws=config.raptor["draws"],
            networks=len(networks),
            fitted=networks.loc[networks["p"] == min(config.drop_path), "train_accuracy"].mean(),
        )
        if where_overfitted is None or records.overfit is records.vits:
            return said
        return f"{said}. Where networks overfit: {verdict(where_overfitted(records.overfit)).strip('*')}"

    return say


def little_overfitting(records: Records) -> str:
    """Why overfitting cannot be judged."""
    if records.overfit is records.vits:
        return "Hardly a network of this study overfits; none that trains until it does is recorded"
    return (
        "The best epoch, chosen on few held-out images, is nearly as overfitted as the last. From the middle to the "
        f"last: {depth.memorising_hurts(records.overfit).numbers}"
    )


def halved_rank(records: Records) -> str:
    """How near to the rule ViTRM is."""
    _, largest, last = records.vitrm.motions["vitrm"].rank
    return f"It falls to {last / largest:.0%} of the largest; the rule asks for less than half, the paper gives no size"


def fewer_epochs(records: Records) -> str:
    """Why ViTRM is not as accurate as published, where it has been trained at that size."""
    if records.at_size is None:
        return AT_SIZE
    published = VITRM.epochs
    epochs = records.at_size["options"]["recipe"]["epochs"]
    return f"{epochs:g} of {published:g} epochs" if epochs < published else UNKNOWN


def short_training(records: Records) -> str:
    """Why the ablations need not be as published."""
    if records.grid is None:
        return AT_SIZE
    size = records.grid.size
    return (
        f"Networks trained for {size.recipe.epochs:g} epochs of {size.train_images or 50_000:,} images (published: "
        "1000 of 50,000), one a cell"
    )


def kept_published() -> str:
    """Shares of the probe's accuracy."""
    shares = " / ".join(f"{100 * share:g}" for share in raptors.PUBLISHED.values())
    return f"{shares} % (DINOv2 ViT-B, ImageNet-1k)"


def top1(data: str, *names: str) -> str:
    """Published accuracy by batch size."""
    parts = []
    for name in names:
        values = [value for value in vitrms.PUBLISHED[data][name] if value == value]
        lost = ", out of memory" * (len(vitrms.BATCH_SIZES) - len(values))
        parts.append(f"{NAMES[name]} {', '.join(f'{value:.1f}' for value in values)} %{lost}")
    return f"{'; '.join(parts)} at batch {', '.join(map(str, vitrms.BATCH_SIZES))}"


NAMES = {"vitrm": "ViTRM", "vit-small": "ViT-Small", "vit-large": "ViT-Large", "resnet50": "ResNet-50"}
NO_DINOV2 = "Needs DINOv2's weights, which were not available"
AT_SIZE = "No run of the published size and length is recorded; it needs a GPU"
OF_OFFLINE = f"Of `{OFFLINE}`, one network; rules and images: [findings](guide/findings.md)."
offline, raptor, vits, overfit, packaged_vit, vitrm, at_size, grid = (
    partial(Claim, study=name)
    for name in ("offline", "raptor", "vits", "overfit", "packaged", "vitrm", "at_size", "grid")
)

# fmt: off
TOPICS = (
    Topic(
        "Phases and layers",
        OF_OFFLINE,
        (
            offline(JACOBS, beyond_drift, "block structure in every ViT shown", unequal_images),
            untested(
                JACOBS, "Boundaries of DINOv2 ViT-B/14 with registers",
                "after layer 7 (k = 2); 7, 10 (k = 3); 4, 7, 10 (k = 4)", NO_DINOV2,
            ),
            offline(
                JACOBS, findings.speed_jumps,
                why="Larger at the boundaries, but not clearly: 12 layers of one network make a weak test",
            ),
            offline(GREFF, findings.estimation, "in Highway and residual networks"),
            offline(
                ASWANI, findings.operator, "up to 4 steps (DINOv3-H/16+)",
                "Holds of cls, not of patches: one map for all layers of a phase is not enough for them. Whether size "
                "or training of the network is the cause is not known",
            ),
            offline(
                ASWANI, findings.most_linear,
                why="Holds in every phase but the last: a single layer, in which cls turns most",
            ),
        ),
    ),
    Topic(
        "Motion of tokens",
        OF_OFFLINE,
        (
            offline(
                JACOBS, findings.convergence,
                why="The last block makes most of the rise. Whether training for saliency, or 12 layers instead of "
                "40, is the cause is not known",
            ),
            offline(JACOBS, findings.final_turn),
            offline(JACOBS, findings.registers, why="The model has no registers"),
            offline(
                JACOBS, findings.basins,
                why="Trained for saliency, not to tell classes apart. By purity, classes gather until the layer "
                "before the last, which undoes some of it; by angles they hardly do",
            ),
            offline(JACOBS, findings.rank),
            offline(
                JACOBS, findings.late_rank, "about 6 (DINOv2 ViT-g)",
                "Another network, with fewer patches and no registers; which of these matters is not known",
            ),
            offline(JACOBS, findings.coherence),
        ),
    ),
    Topic(
        "Perturbations and interventions",
        f"{OF_OFFLINE} Differences of means, without a test but for swaps. Deletions are of "
        "[the packaged network](guide/stochastic_depth_findings.md), which drop-path has trained to bear them.",
        (
            offline(JACOBS, findings.deep_noise_on_patches),
            offline(JACOBS, findings.deep_noise_on_cls),
            offline(
                JACOBS, findings.swaps,
                why="Less harm within than across, but not clearly, and far from harmless: layers of one phase do not "
                "do the same here. Whether a ViT of 40 layers differs was not measured",
            ),
            offline(JACOBS, findings.shuffles),
            offline(JACOBS, findings.replacements),
            packaged_vit(VEIT, deletions, "hardly any in a residual network, down to chance in a VGG (CIFAR-10)"),
            untested(
                VEIT, "Error grows smoothly with the number of layers deleted or moved",
                "in a residual network (CIFAR-10)", "Layers were deleted one at a time and swapped in pairs",
            ),
        ),
    ),
    Topic(
        "Raptor",
        f"Of `{OFFLINE}` on CIFAR-10; rules and fits: [Raptor on the offline model](guide/raptor_findings.md). Kept: "
        "of the accuracy of a linear probe.",
        (
            raptor(JACOBS, raptors.kept, kept_published(), short_fits),
            untested(
                JACOBS, "Top-1 of k = 2, 3, 4 blocks on ImageNet-1k, linear probe",
                "81.2 / 83.0 / 83.2 %, teacher 84.5", NO_DINOV2,
            ),
            untested(
                JACOBS, "Segmentation of ADE20k, mIoU", "39.6 / 43.0 / 43.6 %, teacher 47.5",
                f"{NO_DINOV2}; no probe for segmentation",
            ),
            untested(
                JACOBS, "Depth of NYUv2, RMSE", ".648 / .618 / .607, teacher .578",
                f"{NO_DINOV2}; no probe for depth",
            ),
            raptor(
                JACOBS, raptors.saturation, "top-1 81.2, 83.0, 83.2 % for k = 2, 3, 4",
                of_reduced_raptors(
                    "One fit of each k; changes this small are lost in the noise of {images:,} test images"
                ),
            ),
            raptor(
                JACOBS, raptors.better_than_contiguous,
                why=of_reduced_raptors("Clear in the accuracy kept, not in R², over three draws of short fits"),
            ),
            raptor(JACOBS, raptors.better_than_shuffled),
            raptor(
                JACOBS, raptors.forcing, "top-1 by the teacher's own classifier",
                of_reduced_raptors(
                    "It does by R²; a probe trained anew on its features makes up for much, and the teacher has no "
                    "classifier"
                ),
            ),
            raptor(
                JACOBS,
                raptors.rungs,
                "top-1 3.9, 72.7, 75.2, 76.7, 82.4 %; 83.0 by a probe",
                of_reduced_raptors(
                    "One fit of each, and changes within the noise of {images:,} test images. Stage 2 raises R², not "
                    "what the probe keeps"
                ),
            ),
            raptor(JACOBS, raptors.middle, why=weak_end),
        ),
    ),
    Topic(
        "Stochastic depth",
        "Of small ViTs trained from scratch on CIFAR-10; rules and networks: [stochastic depth, recorded]"
        "(guide/stochastic_depth_findings.md). Of evenness, similarity and fidelity: rank correlations with p.",
        (
            vits(
                JACOBS,
                depth.accuracy_rises,
                "best at p ≈ 0.6",
                small_study(
                    "It falls with p: after {images:,} images and {epochs} epochs even p = 0 gets only {fitted:.1%} on "
                    "training images, so there is little to regularise; {seeds} seeds make intervals wide",
                    depth.accuracy_rises,
                ),
            ),
            vits(
                JACOBS,
                depth.evenness_grows,
                why=small_study(
                    "With k = 3 they are as even as can be at p = 0; the fall is boundaries one layer off",
                    depth.evenness_grows,
                ),
            ),
            vits(JACOBS, depth.similarity_grows),
            vits(JACOBS, depth.fidelity_grows),
            vits(
                JACOBS, depth.raptor_accuracy_rises, "best at p ≈ 0.6",
                small_study("The networks themselves lose accuracy with p; {seeds} seeds make intervals wide"),
            ),
            vits(
                JACOBS, depth.better_than_contiguous,
                why=small_study("A small difference, of {networks} networks with {draws} draws each"),
            ),
            vits(
                JACOBS, depth.better_than_shuffled,
                why=small_study("Clear in R², not in the accuracy kept; {networks} networks with {draws} draws each"),
            ),
            vits(
                JACOBS, depth.more_blocks, "k = 2 already good, large gain from 2 to 3",
                small_study("A gain within the spread of {networks} networks"),
            ),
            vits(
                JACOBS,
                depth.structure_predicts,
                why=small_study(
                    "z hardly differs between these networks and falls with p while R² rises; {seeds} networks of one "
                    "p tell nothing. The share cut does go with R²"
                ),
            ),
            vits(JACOBS, depth.untrained_easier),
            overfit(JACOBS, depth.overfitting_hurts, why=little_overfitting),
        ),
    ),
    Topic(
        "ViTRM",
        "Trained from scratch on CIFAR-10, one network of each; sizes, rules and recipe: [ViTRM, recorded]"
        "(guide/vitrm_findings.md).",
        (
            Claim(AKAZAN, sizes, "3,624,971 and 3,659,621"),
            at_size(AKAZAN, vitrms.published_accuracy, "93.1 % after 1000 epochs", fewer_epochs),
            untested(AKAZAN, "Accuracy on CIFAR-100", top1("CIFAR-100", "vitrm", "vit-small"), AT_SIZE),
            vitrm(AKAZAN, vitrms.better_than_linear, "93.1 %, no linear classifier"),
            vitrm(
                AKAZAN, vitrms.against_vit, "93.1 % with 3.6 M against 93.9 % with 16.9 M (ViT-Small), batch 128",
            ),
            untested(
                AKAZAN, "It bears large batches better than ViT-Small (CIFAR-10)",
                top1("CIFAR-10", "vitrm", "vit-small"), AT_SIZE,
            ),
            untested(
                AKAZAN, "It is more accurate than ResNets at every batch size (CIFAR-10)",
                top1("CIFAR-10", "vitrm", "resnet50"), AT_SIZE,
            ),
            untested(AKAZAN, "ViT-Large does worse (CIFAR-10)", top1("CIFAR-10", "vit-large"), AT_SIZE),
            vitrm(AKAZAN, vitrms.more_steps, "best at T = 1"),
            grid(AKAZAN, vitrms.best_of_grid, "n = 3, N_sup = 1", short_training),
            grid(
                AKAZAN, vitrms.batch_sizes, top1("CIFAR-10", "vitrm"),
                "At equal epochs a larger batch makes fewer steps, which matters most in short training",
            ),
            grid(AKAZAN, vitrms.sees_image, "asked, with an ablation", short_training),
            vitrm(JACOBS, vitrms.converge, "of ViTs, not of ViTRM"),
            vitrm(JACOBS, vitrms.repair, "of ViTs, not of ViTRM"),
            vitrm(JACOBS, vitrms.rank, "of ViTs, not of ViTRM", halved_rank),
        ),
    ),
)
# fmt: on
