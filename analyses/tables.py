"""Write the measured numbers into README.md and docs/measured.md from the recorded results.

python -m analyses.tables            # rewrite
python -m analyses.tables --check    # fail if they differ from the results
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from analyses.recording import OFFLINE, RESULTS, write_or_check
from analyses.stochastic_depth_cells import read_study
from analyses.stochastic_depth_findings import K, best_networks, spread
from brdyn.classifiers.recipe import BEST
from brdyn.phases import Phases
from brdyn.raptor.partitions import CONTIGUOUS, MAXCUT, SHUFFLE
from brdyn.store import read_json

ROOT = Path(__file__).resolve().parents[1]
START, END = "<!-- measured: start -->", "<!-- measured: end -->"


def result(name: str) -> dict[str, Any]:
    """One recorded result."""
    return read_json(RESULTS / name, "a recorded result")


def speed_table() -> list[str]:
    """Speed and memory, with the file each number is from; GPU rows follow where they are recorded."""
    rows = ["| measured | result | recorded in |", "| --- | --- | --- |"]
    devices: dict[str, str] = {}
    for suffix in ("", "_cuda"):
        for name, make in BENCHMARKS.items():
            path = RESULTS / f"{name}{suffix}.json"
            if path.is_file():
                found = result(path.name)
                rows += [f"{row} | `{path.name}` |" for row in make(found)]
                origin = found["provenance"]
                devices.setdefault(origin["device"], origin["date"][:10])
    said = "; ".join(f"{device}, {date}" for device, date in devices.items())
    return [*rows, "", f"{'Device' if len(devices) == 1 else 'Devices'}: {said}."]


def capture_rows(found: dict[str, Any]) -> list[str]:
    """What capture costs, and memory."""
    rows = []
    for cost in found["capture"]:
        low, high = cost["ratio_interval_95"]
        rows.append(
            f"| capture and {cost['similarity']} similarity over the bare forward, {cost['model']}, {cost['dtype']}, "
            f"batch {cost['batch_size']} | {cost['ratio']:.3f} x (95 % interval {low:.3f} to {high:.3f}); "
            f"the reduction alone {cost['reduction_over_bare']:.1%} of a forward"
        )
    overlap, half = found["overlap"], found["precision"]
    last = half["layers"] - 1
    same = [k for k in half["k_with_the_same_boundaries"] if 2 <= k <= last]
    on_cpu = "CPU" in found["provenance"]["device"]
    rows += [
        f"| decoding in the background over decoding in turn, {overlap['model']}{', one compute thread' * on_cpu} "
        f"| {overlap['background_over_sequential']:.2f} x",
        f"| bfloat16 against float32, {half['images']} photographs: largest change of the similarity; boundaries "
        f"| {half['largest_difference']:.1e}; the same for {len(same)} of the {last - 1} k from 2 to {last}",
    ]
    if on_cpu:  # memory is that of a process on a CPU in any case
        peaks, kept = found["peak_memory_mib"], found["peak_memory_keeping_states_mib"]
        rows.append(
            f"| peak memory for 100 and for 1000 images | {peaks['100']:.0f} and {peaks['1000']:.0f} MiB (keeping "
            f"every state: {kept['100']:.0f} and {kept['1000']:.0f})"
        )
    return rows


def precision_rows(found: dict[str, Any]) -> list[str]:
    """What bfloat16 changes of how tokens move."""
    known = [row for row in found["dynamics"] if row["of_half_width"] is not None]
    worst = max(known, key=lambda row: row["of_half_width"])
    images = next(iter(found["similarity"].values()))["images"]
    return [
        f"| bfloat16 against float32, how tokens move, {images} photographs: largest change of a mean "
        f"| {worst['of_half_width']:.2f} half widths of its 95 % interval over images ({worst['statistic']}, "
        f"{worst['group']})"
    ]


def end_to_end_rows(found: dict[str, Any]) -> list[str]:
    """A model from its name to phases and motion."""
    return [
        f"| {one['run']} of {found['model']['name']}, {found['dtype']}, from files to result, {one['images']} "
        "photographs "
        f"| {one['images_per_second']:.1f} images/s, peak {one['peak_mib'] / 1024:.1f} GiB"
        for one in found["runs"]
    ]


def dynamics_rows(found: dict[str, Any]) -> list[str]:
    """What the measures of motion cost."""
    sweep, worst = found["perturbation_sweep"], max(found["rank_error"].values())
    (low, high), (least, most) = found["ratio_interval_95"], sweep["ratio_interval_95"]
    return [
        f"| all measures of `brdyn dynamics` over the bare forward, {OFFLINE}, batch {found['batch_size']} "
        f"| {found['ratio']:.2f} x (95 % interval {low:.2f} to {high:.2f})",
        f"| perturbing every state, one size of noise, over L + 1 forwards, {OFFLINE}, batch {sweep['batch_size']} "
        f"| {sweep['ratio']:.2f} x (95 % interval {least:.2f} to {most:.2f})",
        f"| largest error of a rank against a float64 SVD, relative | {worst:.1e}",
    ]


def raptor_rows(found: dict[str, Any]) -> list[str]:
    """A step of Raptor against a write-up."""
    rows = []
    for step in found["steps"]:
        low, high = step["speedup_interval_95"]
        rows.append(
            f"| a stage-2 step of Raptor with its teacher, {step['dtype']}, against a float32 write-up of the "
            f"published one that reads stored states, {step['model']}, batch {step['batch_size']} "
            f"| {step['speedup']:.2f} x as fast (95 % interval {low:.2f} to {high:.2f}; "
            f"{step['speedup_if_reading_cost_nothing']:.2f} x if reading cost nothing); "
            f"the teacher is {step['share_of_the_teacher']:.0%} of the step; losses differ by "
            f"{step['relative_difference_of_losses']:.0e}"
        )
    stored, memory = found["steps"][0]["bytes_on_disk_per_image"] / 1e6, found["peak_memory_mib"]
    return [
        *rows,
        f"| disk an image, and peak memory of that step | none, {memory['ours']:.0f} MiB (write-up: {stored:.2f} MB, "
        f"{memory['published']:.0f} MiB; a process that takes no step: {memory['neither']:.0f} MiB)",
    ]


def vitrm_rows(found: dict[str, Any]) -> list[str]:
    """A step of ViTRM against a write-up, and latency."""
    rows = []
    for step in found["training"]:
        low, high = step["speedup_interval_95"]
        rows.append(
            f"| a training step of ViTRM, {step['dtype']}, against a float32 write-up of the published loop, batch "
            f"{step['batch_size']} | {step['speedup']:.2f} x as fast (95 % interval {low:.2f} to {high:.2f}; "
            f"{step['speedup_of_ready_batches']:.2f} x on ready batches), {step['images_per_second']:.0f} images/s; "
            "augmentation is "
            f"{step['share_of_augmentation']:.0%} of the step; losses differ by "
            f"{step['relative_difference_of_losses']:.0e}"
        )
    one, equal = found["latency"][0], found["latency_of_the_small_study"]
    return [
        *rows,
        f"| latency of one image, ViTRM (3.6 M parameters) over ViT-Small (16.9 M), {one['dtype']} "
        f"| {one['vitrm_over_vit_small']:.2f} x",
        f"| the same of the two small networks of equal accuracy, float32 | {equal['vitrm_over_vit_small']:.2f} x",
        f"| operations to train ViTRM on an image | {found['training_gflop_per_image']:.1f} GFLOP",
    ]


def segment_rows(found: dict[str, Any]) -> list[str]:
    """What segmenting costs."""
    slow = found["exhaustive_two_phases"]["18"]["plain_ms"]
    return [
        f"| exact segmentation of 40 layers for all k; with alternatives, z and drift "
        f"| {found['all_k_ms']['40']:.2f} ms; {found['segment_ms']['40']:.1f} ms",
        f"| exhaustive max-cut of 18 layers into two, doubling with every layer | {slow:.0f} ms",
    ]


BENCHMARKS: dict[str, Callable[[dict[str, Any]], list[str]]] = {
    "bench_capture": capture_rows,
    "precision": precision_rows,
    f"end_to_end_{OFFLINE}": end_to_end_rows,
    "end_to_end_dinov2_vitg14": end_to_end_rows,
    "bench_dynamics": dynamics_rows,
    "bench_raptor": raptor_rows,
    "bench_vitrm": vitrm_rows,
    "bench_segment": segment_rows,
}


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
