"""The stochastic-depth study at tiny size: it goes on, survives, and its verdicts follow their rules."""

import dataclasses
import json
import shutil
import sys
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from analyses import bench_vitrm, claims, package_small_vit, pages, stochastic_depth, training_runs
from analyses.findings import depth
from analyses.stochastic_depth_cells import Config, Recorded, read_study
from brdyn.classifiers.recipe import ClassifierRecipe
from brdyn.classifiers.saved import Classifier, halve
from brdyn.classifiers.training import ClassifierRun
from brdyn.errors import BrdynError, UsageError
from brdyn.phases import segment
from brdyn.store import OutputFolder, read_json
from tests.some_records import only


def judged(name, study):
    """What a claim comes to, of a study that is made up."""
    return claims.of(f"depth.{name}").judge(Namespace(vits=study, overfit=study), "vits")


def written_up(study):
    """The page of a study alone."""
    return pages.of_records("stochastic_depth_findings.md.j2", only(vits=study))


def write_config(path, **changes):
    content = {
        "name": "tiny",
        "network": {"model": "vit-tiny12", "width": 8, "depth": 4, "heads": 1, "hidden": 8, "patch": 16},
        "image_size": 32, "train_images": 60, "test_images": 30, "held_out": 20, "drop_path": [0.0, 0.5], "seeds": 2,
        "training": {"epochs": 2, "warmup_epochs": 0, "batch_size": 20, "operations": 0, "mixup": 0.0, "cutmix": 0.0},
        "middle": 1, "similarity": {"images": 20, "replicates": 5}, "phases": [2, 3],
        "raptor": {"k": [1, 2, 3], "partitioned": [3], "draws": 1, "moments_k": [3], "test_images": 20,
                   "settings": {"stage1_steps": 1, "stage2_steps": 1, "batch_size": 10}},
        "followed_rates": [0.0, 0.5], **changes,
    }  # fmt: skip
    path.write_text(json.dumps(content))  # which is YAML too
    return path


def test_stochastic_depth_study_goes_on_and_is_written_up(monkeypatch, tmp_path, capsys, little_cifar):
    config, out = tmp_path / "config.yaml", tmp_path / "out"
    write_config(config)

    def run(*arguments):
        files = ["--train", little_cifar["train"], "--test", little_cifar["test"], "--out", out]
        monkeypatch.setattr(sys, "argv", ["study", *map(str, ["--config", config, *files, *arguments])])
        stochastic_depth.main()
        return capsys.readouterr().out.splitlines()

    assert run("--part", "fits")[0].endswith("networks/p0_seed0_best, is not recorded; run that first")
    assert "out of time" in run("--minutes", 0)[-1]
    said = run("--part", "networks", "--share", "0/2")
    moments = ("best", "untrained", "middle", "last")
    assert [line.split(":")[0] for line in said] == [
        f"networks/p0_seed{seed}_{moment}" for seed in (0, 1) for moment in moments
    ]
    fit_raptor = training_runs.fit_raptor

    def broken(teacher, images, assignment, settings, **options):
        if settings.seed == 1 and len(set(assignment)) == 1:
            raise RuntimeError("no memory left")
        return fit_raptor(teacher, images, assignment, settings, **options)

    assert read_study("tiny", out).fits.empty
    unfitted = read_study("tiny", out)
    assert "not recorded yet" in written_up(unfitted)
    assert judged("fidelity_grows", unfitted).holds is None
    with monkeypatch.context() as patched:
        patched.setattr(training_runs, "fit_raptor", broken)
        said = run()
    assert said[0] == "networks/p0_seed0_best: already recorded"
    assert sum("RuntimeError: no memory left" in line for line in said) == 2
    # of four networks three k, and each random partition at k = 3; then six other moments with p = 0, four with p = 0.5
    assert sum(line.startswith("fits/") for line in said) == 4 * (3 + 2) + 6 + 4
    study = read_study("tiny", out)
    assert study.networks["moment"].value_counts().to_dict() == {
        "best": 4,
        "middle": 4,
        "last": 4,
        "untrained": 2,
    }
    assert len(study.failed) == 2
    assert len(study.fits) == 28
    placements = {
        tuple(read_json(path, "it")["asked"]["assignment"]) for path in out.rglob("random-contiguous_k3_draw0.json")
    }
    assert len(placements) > 1  # every network has draws of its own
    row = study.fits[study.fits["teacher_accuracy"] > 0.35].iloc[:1]
    for _, fit in row.iterrows():
        assert fit["kept"] == pytest.approx((fit["accuracy"] - 0.1) / (fit["teacher_accuracy"] - 0.1))
    assert study.networks.loc["p0_seed0_untrained", "epoch"] == 0
    page = written_up(study)
    for claim in claims.every():
        assert (claim.claim in page) == (claim.table == "depth") or claim.table == "raptor"
    assert "Failed: p0" in page
    assert "## On CIFAR-100" not in page
    page = pages.of_records("stochastic_depth_findings.md.j2", only(vits=study, cifar100=study))
    _, also = page.split("## On CIFAR-100")
    assert "4 networks of the reduced study's size, trained for 2 epochs on 40 images of a hundred classes" in also
    assert also.count("| Accuracy of the network rises with p up to about 0.6 |") == 1

    said = [line.split(": ")[1] for line in run()]
    assert said.count("already recorded") == len(said) - 2 == 14 + 28
    assert read_study("tiny", out).failed == {}
    write_config(config, similarity={"images": 10, "replicates": 5})
    kept = {path: path.stat().st_mtime_ns for path in (out / "tiny" / "runs").rglob("model.safetensors")}
    assert not any("already" in line for line in run("--part", "networks"))
    assert kept == {path: path.stat().st_mtime_ns for path in kept}  # measured again, not trained again
    write_config(config, training={"epochs": 2, "warmup_epochs": 0, "batch_size": 10})
    with pytest.raises(SystemExit):
        run()
    assert "recipe.batch_size: 20 before, 10 now" in capsys.readouterr().err
    assert read_study("tiny", out).config.training["batch_size"] == 20  # the refused run left everything as it was
    assert kept == {path: path.stat().st_mtime_ns for path in kept}


@pytest.mark.parametrize(
    ("changes", "meant"),
    [
        ({}, True),
        ({"seeds": 1, "phases": [2]}, True),
        ({"training": {"epochs": 3}}, False),
        ({"similarity": {"images": 10, "replicates": 5}}, False),
        ({"held_out": 10}, False),
        ({"middle": 0.5}, False),
        (
            {
                "network": {
                    "model": "vit-tiny12",
                    "width": 8,
                    "depth": 4,
                    "heads": 1,
                    "hidden": 16,
                    "patch": 16,
                }
            },
            False,
        ),
    ],
)
def test_results_of_another_study_are_told_apart(tmp_path, changes, meant):
    config = Config.read(write_config(tmp_path / "config.yaml"))
    asked = {
        "similarity": {"images": 20, "replicates": 5},
        "run": {
            "network": "vit-tiny12",
            "built": {"width": 8, "depth": 4, "heads": 1, "hidden": 8, "patch": 16, "drop_path": 0.5},
            "recipe": {**config.training, "seed": 1, "lr": 3e-4},
            "held_out": 20,
            "keep": ["0", "1", "best"],
        },
    }
    assert dataclasses.replace(config, **changes).asks_for(asked) is meant


def test_a_network_is_shipped(tmp_path, monkeypatch):
    """Float16, with what was measured in its card; never one that is too large."""
    test = replace(bench_vitrm.noise(40), labels=torch.arange(40) % 10)
    run = ClassifierRun(
        network="vit-tiny12", recipe=ClassifierRecipe(epochs=1, warmup_epochs=0, batch_size=20),
        built={"width": 8, "depth": 2, "heads": 1, "hidden": 8, "patch": 16, "drop_path": 0.4}, keep=("best",),
        held_out=10,
    )  # fmt: skip
    with OutputFolder(tmp_path / "run") as folder:
        trained = run.train(test, test, folder=folder).content()
    origin = {"command": "python -m it", "date": "2026-01-01T00", "device": "a CPU"}
    found = package_small_vit.ship(tmp_path / "run", tmp_path / "home", test, origin)
    shipped = Classifier.from_pretrained(tmp_path / "home")
    best = Classifier.from_pretrained(tmp_path / "run" / "best").network.state_dict()
    assert all(torch.equal(value, best[name].half().float()) for name, value in shipped.network.state_dict().items())
    assert found["accuracy"] == pytest.approx(trained["kept"]["best"]["accuracy"], abs=0.05)
    assert found["bytes"] < 3 * shipped.parameters + 5000
    said = " ".join((tmp_path / "home" / "README.md").read_text().split())
    for words in (
        "2 layers, width 8, 1 heads",
        "30 images of CIFAR-10",
        "drop-path 0.4,",
        f"{found['accuracy']:.1%} [",
    ):
        assert words in said
    before = (tmp_path / "home" / "model.safetensors").read_bytes()
    monkeypatch.setattr(package_small_vit, "LARGEST", 100)
    with pytest.raises(BrdynError, match="MB of weights are more than"):
        package_small_vit.ship(tmp_path / "run", tmp_path / "home", test, origin)
    assert (tmp_path / "home" / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "cannot read"),
        ("name: x", "lacks one .*drop_path"),
        ("- 1", "makes no sense"),
        ({"middle": 2}, "middle: 2 is not between"),
        ({"training": {"epoch": 1}}, "an entry that makes no sense"),
        ({"network": {"model": "vit-tiny12", "depth": 4, "wdth": 8}}, "an entry that makes no sense"),
        ({"drop_path": [1.5]}, "drop-path 1.5"),
        ({"phases": [5]}, "k=5 phases need at least 5 layers; the network has 4"),
        ({"similarity": {"images": 3}}, "an entry that makes no sense"),
    ],
)
def test_configs_that_make_no_sense(tmp_path, text, words):
    path = tmp_path / "config.yaml"
    if isinstance(text, str):
        path.write_text(text)
    else:
        write_config(path, **text)
    with pytest.raises(UsageError, match=words):
        Config.read(path)


def test_every_size_of_the_study_can_be_read():
    whole = {"best", "untrained", "middle", "last"}
    moments = {
        "stochastic_depth": whole,
        "stochastic_depth_cpu": whole,
        "stochastic_depth_cifar100": {"best"},
    }
    for name, expected in moments.items():
        config = Config.read(Path(stochastic_depth.__file__).with_name(f"{name}.yaml"))
        networks = config.networks()
        cells = [cell for one in networks for cell in config.raptors(one)]
        assert len(set(cells)) == len(cells) > 3 * len(networks)
        assert {cell.teacher.moment for cell in cells} == expected


def made_up(peak=0.7):
    """Networks of two seeds; the larger p, the larger the step between their two blocks of layers."""
    rng, block = np.random.default_rng(0), np.arange(12) // 6
    fits, networks, similarity = [], [], {}
    for p in (0.0, 0.2, 0.4, 0.6, 0.8):
        for seed in (0, 1):
            right = 0.5 + 0.4 * p * (p < peak) + 1e-3 * seed
            place = np.cumsum(1 + (3 + 20 * p) * np.diff(block, prepend=0) + 0.05 * np.tile([-1, 1], 6))
            apart = np.abs(place[:, None] - place)
            similarity[f"p{p:g}_seed{seed}_best"] = np.exp(-apart / 200)
            for moment in ("best", "untrained", "last"):
                networks.append({"name": f"{p}{seed}{moment}", "p": p, "seed": seed, "moment": moment,
                                 "accuracy": right, "mean_similarity": p + 0.01 * seed, "evenness_3": 1 - p,
                                 "z_3": rng.normal(),
                                 "cut_3": 0.5, "overfitted": p > 0.1})  # fmt: skip
                r2 = {"best": 0.5, "untrained": 0.9, "last": 0.4}[moment]
                for k, more in ((1, -0.3), (2, -0.15), (3, 0), (4, 0.02)):
                    for partition, draw, less in (("maxcut", 0, 0.0), ("random-contiguous", 0, 0.1),
                                                  ("random-contiguous", 1, 0.12)):  # fmt: skip
                        value = r2 + 0.1 * p + more - less + 1e-3 * rng.normal()
                        fits.append({"p": p, "seed": seed, "moment": moment, "k": k, "partition": partition,
                                     "draw": draw, "accuracy": right * value, "kept": value, "r2": value,
                                     "skill": value})  # fmt: skip
    config = Config(
        **{
            **dict.fromkeys(entry.name for entry in dataclasses.fields(Config)),
            "phases": [3],
            "network": {"depth": 12},
            "drop_path": [0.0, 0.2],
        }
    )
    table = pd.DataFrame(networks).set_index("name")
    return Recorded(table, pd.DataFrame(fits), pd.DataFrame(), similarity, {}, {}, config, {}, {}, 10)


def test_verdicts_follow_their_rules():
    names = [claim.measure.partition(".")[2] for claim in claims.every() if claim.table == "depth"]
    found = {name: judged(name, made_up()) for name in names if name != "not_only_less_trained"}
    assert {name: one.holds for name, one in found.items()} == {
        "accuracy_rises": True, "evenness_grows": None, "similarity_grows": True, "fidelity_grows": True,
        "raptor_accuracy_rises": True, "better_than_contiguous": True, "better_than_shuffled": None,
        "more_blocks": True, "structure_predicts": True, "overfitting_hurts": True,
    }  # fmt: skip
    assert "larger in 10 of 10" in found["better_than_contiguous"].said
    assert "(8 overfitted)" in found["overfitting_hurts"].said
    early = judged("accuracy_rises", made_up(peak=0.3))
    assert early.holds is False
    assert "under p=0.2" in early.said


def test_networks_of_several_seeds_are_compared_by_skill():
    """R2 rises with p where layers are more alike, whatever a Raptor does."""
    made = made_up()
    for skill, holds in ((np.nan, None), (-made.fits["skill"], False)):
        changed = made._replace(fits=made.fits.assign(skill=skill))
        for name in ("fidelity_grows", "structure_predicts", "overfitting_hurts"):
            found = judged(name, changed)
            assert found.holds is holds
            assert ("skill not recorded" in found.said) == (holds is None and name != "overfitting_hurts")


def test_evenness_has_to_have_room():
    """Of 4, 4 and 4 layers it is 1; of 5, 3 and 4 .981: only from below that can it be seen to grow."""
    assert depth.evenness_one_off(12) == pytest.approx(0.980834, abs=1e-6)
    made = made_up()
    for least, holds in ((0.99, None), (0.975, True)):
        even = least + 0.02 * made.networks["p"] + 1e-4 * made.networks["seed"]
        assert judged("evenness_grows", made._replace(networks=made.networks.assign(evenness_3=even))).holds is holds
    falls = made.networks.assign(evenness_3=0.9 - 0.1 * made.networks["p"])
    assert judged("evenness_grows", made._replace(networks=falls)).holds is False


def test_clearer_phases_need_phases():
    made = made_up()
    smooth = np.exp(-np.abs(np.subtract.outer(np.arange(12), np.arange(12))) / 40)
    drifts = made._replace(similarity=dict.fromkeys(made.similarity, smooth))
    assert judged("structure_predicts", drifts).holds is None


@pytest.mark.parametrize(("middle", "holds"), [(0.3, True), (0.55, None), (0.9, False)])
def test_fidelity_against_networks_that_learnt_less(middle, holds):
    """Raptors of networks with p >= 0.6 have a skill of 0.56 to 0.58; one seed of the others .02 more."""
    made = made_up()
    networks = made.networks.assign(moment=made.networks["moment"].replace("last", "middle"))
    fits = made.fits.assign(moment=made.fits["moment"].replace("last", "middle"))
    for column in ("r2", "skill"):
        fits.loc[fits["moment"] == "middle", column] = middle
        fits.loc[(fits["moment"] == "middle") & (fits["seed"] == 0), column] += 0.02
    found = judged("not_only_less_trained", made._replace(networks=networks, fits=fits))
    assert found.holds is holds
    assert f"{middle:.3f} to {middle + 0.02:.3f} (50.0% to 50.1%)" in found.said


def test_evenness_by_hand():
    matrix = np.kron(np.eye(3), np.ones((4, 4)))
    assert segment(matrix, k=3).evenness == pytest.approx(1)
    assert segment(matrix, k=1).evenness == 1
    sizes = np.array([2, 10]) / 12
    early = np.arange(12) < 2
    uneven = segment((early[:, None] == early).astype(float), k=2)
    assert uneven.boundaries == (2,)
    assert uneven.evenness == pytest.approx(-(sizes * np.log(sizes)).sum() / np.log(2))


def test_networks_are_kept_in_float16_and_some_can_be_chosen(monkeypatch, tmp_path, capsys, little_cifar):
    config, out = tmp_path / "config.yaml", tmp_path / "out"
    content = json.loads(write_config(config).read_text())
    raptor = {**content["raptor"], "k": [2], "partitioned": [], "moments_k": [2]}
    write_config(config, seeds=1, float16=True, followed_rates=[0.5], raptor=raptor)

    def run(*arguments):
        files = ["--train", little_cifar["train"], "--test", little_cifar["test"], "--out", out]
        monkeypatch.setattr(sys, "argv", ["study", *map(str, ["--config", config, *files, *arguments])])
        stochastic_depth.main()
        return capsys.readouterr().out.splitlines()

    said = run("--only", "p0.5_seed0")
    assert [line.split(":")[0] for line in said] == [
        "networks/p0.5_seed0_best", "networks/p0.5_seed0_middle", "networks/p0.5_seed0_last",
        "fits/p0.5_seed0_best/maxcut_k2", "fits/p0.5_seed0_middle/maxcut_k2", "fits/p0.5_seed0_last/maxcut_k2",
    ]  # fmt: skip
    runs = out / "tiny" / "runs" / "p0.5_seed0"
    for place in (runs, runs / "best", runs / "epoch0"):
        weights = load_file(place / "model.safetensors")
        assert {value.dtype for value in weights.values()} == {torch.float16}
    study = read_study("tiny", out)
    assert set(study.fits["moment"]) == {"best", "middle", "last"}
    assert not study.failed
    with pytest.raises(SystemExit):
        run("--only", "p0.5_seed7")
    assert "'p0.5_seed7' is not one of p0_seed0, p0.5_seed0" in capsys.readouterr().err
    shutil.rmtree(runs)
    assert {line.split(": ")[1] for line in run("--only", "p0.5_seed0", "--part", "networks")} == {"already recorded"}
    assert {line.split(": ")[1] for line in run("--only", "p0.5_seed0")} == {"already recorded"}
    assert not runs.exists()
    (out / "tiny" / "fits" / "p0.5_seed0_middle" / "maxcut_k2.json").unlink()
    record = out / "tiny" / "networks" / "p0.5_seed0_middle.json"
    digest = read_json(record, "it")["digest_of_weights"]
    assert "middle, are not here; run that too, and it is trained" in run("--only", "p0.5_seed0", "--part", "fits")[1]
    said = [line.split(": ") for line in run("--only", "p0.5_seed0")]
    assert [name for name, how in said if how == "already recorded"] == [
        "networks/p0.5_seed0_best", "networks/p0.5_seed0_last",  # what the middle's training left is the same
        "fits/p0.5_seed0_best/maxcut_k2", "fits/p0.5_seed0_last/maxcut_k2",
    ]  # fmt: skip
    assert read_json(record, "it")["digest_of_weights"] == digest
    write_config(config, seeds=1, followed_rates=[0.5], raptor=raptor)
    asked = read_json(out / "tiny" / "networks" / "p0.5_seed0_best.json", "it")["asked"]
    assert not Config.read(config).asks_for(asked)


def test_a_halved_classifier_is_rounded_once(tmp_path):
    size = {"width": 4, "heads": 1, "hidden": 4, "depth": 1}
    classifier = Classifier.new("vit-tiny12", ("a", "b"), 8, (0.5,) * 3, (0.5,) * 3, **size)
    classifier.save_pretrained(tmp_path, trained={"epochs": 1})
    whole = (tmp_path / "model.safetensors").stat().st_size
    halve(tmp_path)
    halved = Classifier.from_pretrained(tmp_path)
    config = read_json(tmp_path / "config.json", "it")
    assert config["trained"] == {"epochs": 1}
    assert (tmp_path / "model.safetensors").stat().st_size < 0.9 * whole
    for name, value in classifier.network.state_dict().items():
        assert torch.equal(halved.network.state_dict()[name], value.half().float())
    halve(tmp_path)
    assert Classifier.from_pretrained(tmp_path).digest == halved.digest


@pytest.mark.parametrize(("r2", "kept", "holds"), [(0.3, 0.3, True), (0.3, 0.7, False), (0.3, 0.5, None)])
def test_learning_by_heart_is_judged_by_both(r2, kept, holds):
    made = made_up()
    fits = made.fits.query("moment != 'untrained'").copy()
    networks = made.networks.query("moment != 'untrained'").copy()
    for table in (fits, networks):
        table["moment"] = table["moment"].replace("best", "middle")
    networks["train_accuracy"] = np.where(networks["moment"] == "last", 1.0, 0.5)
    fits["r2"] = np.where(fits["moment"] == "last", r2, 0.5)
    fits["skill"] = fits["r2"] + 1e-3 * fits["seed"] * (fits["moment"] == "last")
    fits["kept"] = np.where(fits["moment"] == "last", kept + 0.01 - 0.02 * fits["seed"], 0.5)
    found = judged("memorising_hurts", made._replace(networks=networks, fits=fits))
    assert found.holds is holds
    assert "R² 0.500 to 0.300" in found.said
    assert "(10 networks; training images +50.0%, test images +0.0%)" in found.said
    learning = networks.assign(accuracy=np.where(networks["moment"] == "last", 0.9, 0.4))
    assert judged("memorising_hurts", made._replace(networks=learning, fits=fits)).holds is None
