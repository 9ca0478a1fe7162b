"""Write the measured numbers into README.md and docs/measured.md from the recorded results.

python -m analyses.tables            # rewrite
python -m analyses.tables --check    # fail if they differ from the results
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from analyses.recording import OFFLINE, RESULTS, write_or_check
from analyses.stochastic_depth_cells import read_study
from analyses.stochastic_depth_findings import K, best_networks, spread
from brdyn.classification.kept import BEST
from brdyn.phases import Phases
from brdyn.raptor.partitions import CONTIGUOUS, MAXCUT, SHUFFLE
from brdyn.results import read_json

ROOT = Path(__file__).resolve().parents[1]
START, END = "<!-- measured: start -->", "<!-- measured: end -->"


def result(name: str) -> dict[str, Any]:
    """One recorded result."""
    return read_json(RESULTS / name, "a recorded result")


def speed_table() -> list[str]:
    """Speed and memory, with the file each number is from."""
    capture, segmentation = result("bench_capture.json"), result("bench_segment.json")
    rows = [
        "| measured | result | recorded in |",
        "| --- | --- | --- |",
    ]
    for cost in capture["capture"]:
        low, high = cost["ratio_interval_95"]
        rows.append(
            f"| capture and {cost['similarity']} similarity over the bare forward, {cost['model']}, {cost['dtype']}, "
            f"batch {cost['batch_size']} | {cost['ratio']:.3f} x (95 % interval {low:.3f} to {high:.3f}); "
            f"the reduction alone {cost['reduction_over_bare']:.1%} of a forward | `bench_capture.json` |"
        )
    overlap = capture["overlap"]
    rows.append(
        f"| decoding in the background over decoding in turn, {overlap['model']}, one compute thread "
        f"| {overlap['background_over_sequential']:.2f} x | `bench_capture.json` |"
    )
    half = capture["precision"]
    last = half["layers"] - 1
    same = [k for k in half["k_with_the_same_boundaries"] if 2 <= k <= last]
    rows.append(
        f"| bfloat16 against float32, {half['images']} photographs: largest change of the similarity; boundaries "
        f"| {half['largest_difference']:.1e}; the same for {len(same)} of the {last - 1} k from 2 to {last} "
        "| `bench_capture.json` |"
    )
    moving = result("bench_dynamics.json")
    low, high = moving["ratio_interval_95"]
    rows.append(
        f"| all measures of `brdyn dynamics` over the bare forward, {OFFLINE}, batch {moving['batch_size']} "
        f"| {moving['ratio']:.2f} x (95 % interval {low:.2f} to {high:.2f}) | `bench_dynamics.json` |"
    )
    sweep = moving["perturbation_sweep"]
    low, high = sweep["ratio_interval_95"]
    rows.append(
        f"| perturbing every state, one size of noise, over L + 1 forwards, {OFFLINE}, batch {sweep['batch_size']} "
        f"| {sweep['ratio']:.2f} x (95 % interval {low:.2f} to {high:.2f}) | `bench_dynamics.json` |"
    )
    worst = max(moving["rank_error"].values())
    rows.append(
        f"| largest error of a rank against a float64 SVD, relative | {worst:.1e} | `bench_dynamics.json` |"
    )
    fitting = result("bench_raptor.json")
    for step in fitting["steps"]:
        low, high = step["speedup_interval_95"]
        rows.append(
            f"| a stage-2 step of Raptor with its teacher, {step['dtype']}, against a float32 write-up of the "
            f"published one that reads stored states, {step['model']}, batch {step['batch_size']} "
            f"| {step['speedup']:.2f} x as fast (95 % interval {low:.2f} to {high:.2f}; "
            f"{step['speedup_if_reading_cost_nothing']:.2f} x if reading cost nothing); "
            f"the teacher is {step['share_of_the_teacher']:.0%} of the step; losses differ by "
            f"{step['relative_difference_of_losses']:.0e} | `bench_raptor.json` |"
        )
    stored, memory = fitting["steps"][0]["bytes_on_disk_per_image"] / 1e6, fitting["peak_memory_mib"]
    rows.append(
        f"| disk an image, and peak memory of that step | none, {memory['ours']:.0f} MiB (write-up: {stored:.2f} MB, "
        f"{memory['published']:.0f} MiB; a process that takes no step: {memory['neither']:.0f} MiB) "
        "| `bench_raptor.json` |"
    )
    recursive = result("bench_vitrm.json")
    for step in recursive["training"]:
        low, high = step["speedup_interval_95"]
        rows.append(
            f"| a training step of ViTRM, {step['dtype']}, against a float32 write-up of the published loop, batch "
            f"{step['batch_size']} | {step['speedup']:.2f} x as fast (95 % interval {low:.2f} to {high:.2f}; "
            f"{step['speedup_of_ready_batches']:.2f} x on ready batches), {step['images_per_second']:.0f} images/s; "
            "augmentation is "
            f"{step['share_of_augmentation']:.0%} of the step; losses differ by "
            f"{step['relative_difference_of_losses']:.0e} | `bench_vitrm.json` |"
        )
    one = recursive["latency"][0]
    rows.append(
        f"| latency of one image, ViTRM (3.6 M parameters) over ViT-Small (16.9 M), {one['dtype']} "
        f"| {one['vitrm_over_vit_small']:.2f} x | `bench_vitrm.json` |"
    )
    equal = recursive["latency_of_the_small_study"]
    rows.append(
        "| the same of the two small networks of equal accuracy, float32 "
        f"| {equal['vitrm_over_vit_small']:.2f} x | `bench_vitrm.json` |"
    )
    rows.append(
        f"| operations to train ViTRM on an image | {recursive['training_gflop_per_image']:.1f} GFLOP "
        "| `bench_vitrm.json` |"
    )
    peaks, kept = capture["peak_memory_mib"], capture["peak_memory_keeping_states_mib"]
    rows.append(
        f"| peak memory for 100 and for 1000 images | {peaks['100']:.0f} and {peaks['1000']:.0f} MiB (keeping every "
        f"state: {kept['100']:.0f} and {kept['1000']:.0f}) | `bench_capture.json` |"
    )
    rows.append(
        f"| exact segmentation of 40 layers for all k; with alternatives, z and drift "
        f"| {segmentation['all_k_ms']['40']:.2f} ms; {segmentation['segment_ms']['40']:.1f} ms | `bench_segment.json` |"
    )
    slow = segmentation["exhaustive_two_phases"]["18"]["plain_ms"]
    rows.append(
        f"| exhaustive max-cut of 18 layers into two, doubling with every layer | {slow:.0f} ms "
        "| `bench_segment.json` |"
    )
    return [*rows, "", f"Device: {capture['provenance']['device']}, {capture['provenance']['date'][:10]}."]


def phases_table() -> list[str]:
    """Boundaries of the offline model and of its untrained twin."""
    rows = [
        "| model | k | boundaries (bootstrap stability) | cut | of a drift | z |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    images, source = 0, ""
    for folder in (OFFLINE, f"{OFFLINE}_random0"):
        run = result(f"phases/{folder}/phases.json")
        phases, images = Phases.from_dict(run), run["n_images"]
        source = "/".join(Path(run["provenance"]["images"]["source"]).parts[-2:])
        name = f"`{OFFLINE}`" + (", untrained" if run["weights"].startswith("random") else "")
        for k in (2, 3, 4, 5):
            found = phases.segmentations[k]
            places = ", ".join(
                f"{layer} ({share:.2f})"
                for layer, share in zip(found.boundaries, found.stability or (), strict=True)
            )
            z = f"{found.z:.2f}" if found.z is not None else "–"
            chosen = f"**{k}**" if k == phases.k else str(k)
            rows.append(
                f"| {name} | {chosen} | {places} | {found.cut_share:.1%} | {found.drift_share:.1%} | {z} |"
            )
    note = (
        f"{images} images of `{source}`; cosine of cls and mean patch. Bold: the k chosen by the default rule. "
        "Recorded in `analyses/results/phases/`."
    )
    return [*rows, "", note]


def small_vit_table() -> list[str]:
    """Small ViTs by their drop-path rate, and what Raptors keep of them."""
    study = read_study()
    networks, fits = best_networks(study), study.fits[(study.fits["moment"] == BEST) & (study.fits["k"] == K)]
    kinds = {MAXCUT: "max-cut", CONTIGUOUS: "random contiguous", SHUFFLE: "random shuffle"}
    rows = [
        f"| p | networks | accuracy | evenness of {K} phases | R² of a Raptor, k = {K} | accuracy kept, "
        + " | ".join(kinds.values())
        + " |",
        "| --- " * (5 + len(kinds)) + "|",
    ]
    for p, group in networks.groupby("p"):
        own = fits[fits["p"] == p]
        kept = " | ".join(spread(own[own["partition"] == kind]["kept"], ".1%") for kind in kinds)
        rows.append(
            f"| {p:g} | {len(group)} | {spread(group['accuracy'], '.1%')} | {spread(group[f'evenness_{K}'], '.2f')} "
            f"| {spread(own[own['partition'] == MAXCUT]['r2'], '.2f')} | {kept} |"
        )
    network, origin = study.config.network, study.provenance
    note = (
        f"Small ViTs ({network['depth']} layers, width {network['width']}, patch {network['patch']}) trained from "
        f"scratch on {study.config.train_images or 50_000:,} images of CIFAR-10 with drop-path rate p; ± over seeds "
        f"and draws. {origin['device']}, {origin['date'][:10]}; recorded in `analyses/results/stochastic_depth/"
        f"{study.config.name}/`, read with its limits in [stochastic depth, recorded]"
        "(docs/guide/stochastic_depth_findings.md)."
    )
    return [*rows, "", note]


def pages() -> dict[Path, str]:
    """Both files as they should be."""
    readme = ROOT / "README.md"
    before, rest = readme.read_text().split(START)
    _, after = rest.split(END)
    block = "\n".join([START, "", *phases_table(), "", *small_vit_table(), "", *speed_table(), "", END])
    return {
        readme: before + block + after,
        ROOT / "docs" / "measured.md": "\n".join([*speed_table(), ""]),
    }


def main() -> None:
    """Rewrite, or check."""
    write_or_check(__doc__, pages)


if __name__ == "__main__":
    main()
