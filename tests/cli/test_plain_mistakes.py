"""Mistakes that the options alone show are told before torch is imported, which takes seconds."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from brdyn import choices
from brdyn.cli.failures import RESUMABLE
from brdyn.interventions.operations import operations
from brdyn.measures import SIMILARITIES
from brdyn.models.request import as_dtype
from brdyn.phases import segment
from brdyn.store.result_files import KINDS
from tests.cli.commands import ROOT, assert_one_line_error

LONG = "x" * 300
CASES = [
    (["phases", "--format", "jpg"], "unknown picture format 'jpg'; choose from png, svg, pdf"),
    (["phases", "--device", "gpu"], "unknown device 'gpu'; choose one of auto, cpu, cuda, mps"),
    (["vit-train", "--device", "gpu"], "unknown device 'gpu'"),
    (["vitrm-eval", "x", "--device", "gpu"], "unknown device 'gpu'"),
    (["phases", "--dtype", "fp16"], "unknown dtype 'fp16'; choose one of float32, bfloat16, float16"),
    (["vit-train", "--dtype", "fp16"], "unknown precision 'fp16'; choose one of float32, bfloat16"),
    (["raptor-fit", "--dtype", "fp16"], "unknown precision 'fp16'; choose one of float32, bfloat16"),
    (["phases", "--init", "zero"], "unknown init 'zero'; choose one of pretrained, random"),
    (["phases", "--out", "USED"], "the output folder 'USED' is not empty"),
    (["vit-train", "--out", "USED"], "the output folder 'USED' is not empty"),
    (["vitrm-eval", "x", "--out", "USED"], "the output folder 'USED' is not empty"),
    (["phases", "--out", "FILE"], "cannot make the output folder 'FILE': 'FILE' is not a folder"),
    (["phases", "--out", "FILE/x"], "FILE' is not a folder"),
    (["phases", "--out", "/dev/null"], "'/dev/null' is not a folder"),
    (["phases", "--out", "DANGLING"], "'DANGLING' is a link to nothing"),
    (["phases", "--out", "~no such person/x"], "there is no such home folder"),
    (["raptor-fit", "--cache", "~no such person/x"], "there is no such home folder"),
    (["phases", "--batch-size", "x"], "--batch-size 'x' is neither a positive number nor 'auto'"),
    (["phases", "--batch-size", "²"], "--batch-size '²' is neither"),
    (["phases", "--batch-size", "9" * 5000], "is neither a positive number nor 'auto'"),
    (["phases", "--image-size", "abc"], "--image-size 'abc' is neither"),
    (["phases", "--image-size", "²"], "--image-size '²' is neither"),
    (["phases", "--similarity", "euclid"], "choose one of cosine, token-cosine, cka, procrustes"),
    (["phases", "--method", "greedy"], "unknown method 'greedy'; choose one of contiguous, recursive"),
    (["phases", "--eps", "x"], "--eps"),
    (["phases", "--k", "0"], "--k '0' is neither a number of phases, from 1 on, nor 'test'"),
    (["dynamics", "--k", "-3"], "(it is '-3'); see `brdyn dynamics --help`"),
    (["phases", "--min-size", "0"], "(it is '0')"),
    (["phases", "-n", "0"], "(it is '0')"),
    (["phases", "--workers=10000"], "(it is '10000')"),
    (["phases", "--bootstrap", "999999999"], "(it is '999999999')"),
    (["phases", "--seed", "-1"], "seed -1 is not a whole number from 0"),
    (["probe", "--seeds", "0"], "(it is '0')"),
    (["vitrm-eval"], "Missing argument 'RUN'"),
    (["raptor-fit", "--steps", "10", "--stage1-steps", "20"], "--stage1-steps 20 are more than --steps 10"),
    (["raptor-fit", "--stage2-steps", "3000"], "--stage2-steps 3000 are more than --steps 2000"),
    (["raptor-fit", "--stage1-steps", "5", "--stage2-steps", "5", "--steps", "9"], "are 10, not --steps 9"),
    (["raptor-fit", "--partition-seed", "3"], "--partition-seed 3 is of random partitions"),
    (["raptor-fit", "--teacher-forcing-only", "--annealed", "0.5"], "--annealed 0.5 is of teacher forcing"),
    (["raptor-fit", "--relax", "4"], "error: --relax 4 corrects copies"),
    (
        ["raptor-fit", "--recipe", "fast", "--mlp-ratio", "2"],
        "error: --mlp-ratio 2.0 is of blocks that start at",
    ),
    (
        ["raptor-eval", "x", "--seeds", "5"],
        "--seeds 5 is of probes, and there are none without --probe-train",
    ),
    (["vit-train", "--epochs", "0"], "epochs 0.0 train nothing; --keep 0 keeps a network as it is before"),
    (["vit-train", "--partition", "cycle"], "--partition cycle goes with --shared-blocks"),
    (["vit-train", "--ema-warmup"], "--ema-warmup is of an average of the weights"),
    (["perturb", "--eps", "-1"], "eps -1.0: the relative size of the noise is a number from 0 up"),
    (["perturb", "--eps", "nan"], "eps nan:"),
    (["perturb", "--layers", "x"], "--layers 'x' is not a list of layers"),
    (["interventions", "--kinds", "swap,twist"], "unknown intervention 'twist'; choose from swap, delete"),
    (["splice", "--surrogates", "mean,best"], "unknown surrogate 'best'; choose from identity, mean, affine"),
    (["splice", "--surrogates", "raptor"], "unknown surrogate 'raptor'"),
    (["splice", "--spans", "4"], "--spans '4' is neither 'all' nor states such as 0-4,4-8"),
    (["splice", "--spans", "0-4,x-8"], "--spans '0-4,x-8' is neither"),
    (["splice", "--ridge", "-1"], "ridge -1.0 is not a number from 0 up"),
    (["splice", "--fit-n", "4"], "--fit-n goes with --fit-images"),
    (
        ["splice", "--surrogates", "mean", "--within"],
        "--within applies to exchange, which --surrogates does not include",
    ),
    (
        ["splice", "--surrogates", "mean", "--ridge", "0.1"],
        "--ridge applies to affine and power, which --surrogates",
    ),
    (
        ["splice", "--surrogates", "exchange", "--fit-images", "samples"],
        "--fit-images applies to mean and affine and",
    ),
    (
        ["dynamics", "--tangents", "4"],
        "--tangents applies to spectra, which --measures does not include; add it there, or drop",
    ),
    (
        ["dynamics", "--measures", "all", "--krylov-steps", "4"],
        "--krylov-steps applies to spectra, which --measures",
    ),
    (
        ["dynamics", "--measures", "speed", "--rank", "4"],
        "--rank applies to modes, which --measures does not include",
    ),
    (
        ["dynamics", "--measures", "speed", "--ridge", "0.1"],
        "--ridge applies to modes, which --measures does not include",
    ),
    (
        ["interventions", "--kinds", "swap", "--draws", "7"],
        "--draws applies to shuffle, which --kinds does not include",
    ),
    (
        ["raptor-rank", "--partitions", "maxcut", "--draws", "5"],
        "--draws applies to random-contiguous and random-shuffle",
    ),
    (
        ["splice", "--raptor", "FILE", "--null", "2"],
        "an untrained twin has no Raptor; drop --raptor or --null",
    ),
    (["dynamics", "--measures", "speed,wobble"], "unknown measure 'wobble'; choose from norm, convergence"),
    (["vit-train", "--keep", "x"], "--keep 'x': 'x' is neither an epoch"),
    (["vitrm-train", "--grid", "n=x"], "--grid 'n=x': values are positive whole numbers"),
    (
        ["vitrm-train", "--grid", "n=1", "--latent-steps", "2"],
        "--grid says n of every run; drop --latent-steps",
    ),
    (
        ["vitrm-train", "--grid", "n=1 n_sup=2", "--n-sup", "3"],
        "--grid says n_sup of every run; drop --n-sup",
    ),
    (["raptor-rank", "--dtype", "bfloat16"], "raptor-rank measures and fits in float32; drop --dtype"),
    (["vitrm-train", "--grid", "n=²"], "--grid 'n=²': values are positive whole numbers"),
    (["vit-train", "--tracker", "x"], "unknown tracker 'x'; choose one of none, tensorboard, wandb"),
    (["vit-train", "--model", "x"], "unknown ViT 'x'; choose one of vit-small"),
    (["vitrm-train", "--model", "x"], "unknown network 'x'; choose one of vitrm"),
    (["raptor-fit", "--partition", "x"], "unknown partition 'x'; choose one of maxcut"),
    (["raptor-fit", "--boundaries", "x"], "--boundaries 'x' is not a list of layers such as 7,10"),
    (["raptor-fit", "--boundaries", "2", "--k", "2"], "--boundaries already fixes the phases; drop --k"),
    (["dynamics", "--phases", "NOWHERE.json"], "--phases 'NOWHERE.json': no such file"),
    (["interventions", "--phases", "USED"], "--phases 'USED': not a file"),
    (["raptor-fit", "--phases", LONG], "file name too long"),
    (["dynamics", "--phases", "FILE"], "cannot read 'FILE' as a phases.json (no JSON at line 1"),
    (["perturb", "--phases", "OTHER.json"], "'OTHER.json' is not a phases.json (it has no 'model')"),
    (
        ["interventions", "--phases", "DEEP.json"],
        "cannot read 'DEEP.json' as a phases.json (it is nested too",
    ),
    (
        ["raptor-fit", "--phases", "PHASES.json", "--k", "4"],
        "k=4 phases need at least 4 layers; 'PHASES.json' has 3",
    ),
    (["phases", "--min-gain", "nan"], "--min-gain nan is not a finite number"),
    (["phases", "--min-gain", "1.5"], "min_gain=1.5 is not a share of the dissimilarity, from 0 to 1"),
    (["phases", "--bootstrap", "1"], "bootstrap=1 says nothing of a spread; use 0 for none"),
    (["phases", "--eps=-1"], "eps=-1.0 is not a share of the dissimilarity"),
    (
        ["phases", "--min-size", "9" * 40],
        "is more than 2147483647, the most that is taken",
    ),
    (["dynamics", "--ridge=-1"], "ridge -1.0 is not a number from 0 up"),
    (["dynamics", "--ridge", "inf"], "--ridge inf is not a finite number"),
    (["perturb", "--k", "99999999999"], "--k 99999999999 is more than"),
    (["raptor-fit", "--mlp-ratio", "0"], "MLP ratio 0.0 is not a number above 0"),
    (["raptor-fit", "--mlp-ratio", "nan"], "--mlp-ratio nan is not a finite number"),
    (["raptor-fit", "--mlp", "x"], "unknown MLP 'x'; choose one of swiglu, gelu"),
    (["raptor-fit", "--depth-scaling", "x"], "unknown depth scaling 'x'; choose one of index"),
    (["raptor-fit", "--partition", "random-contiguous"], "--partition random-contiguous needs --k"),
    (["raptor-fit", "--lr", "inf"], "--lr inf is not a finite number"),
    (["vit-train", "--epochs", "inf"], "--epochs inf is not a finite number"),
    (["vit-train", "--epochs", "1e30"], "steps are more than 2147483647; ask for fewer steps or epochs"),
    (["vit-train", "--drop-path", "1"], "drop-path 1.0 is not from 0 to below 1"),
    (["vit-train", "--width", "100", "--heads", "3"], "width 100 cannot be split among 3 heads"),
    (["vit-train", "--image-size", "30"], "image size 30x30 is not a multiple of the 4-pixel patch"),
    (["vit-train", "--depth", "5000"], "depth 5000 is more than 1000"),
    (["vit-train", "--operations", "101"], "101 operations of RandAugment are more than 100"),
    (["vitrm-train", "--dropout=-0.1"], "dropout -0.1 is not from 0 to below 1"),
    (["vitrm-train", "--patch", "5"], "image size 32x32 is not a multiple of the 5-pixel patch of 'vitrm'"),
    (["vitrm-train", "--latent-steps", "2000"], "latent-steps 2000 is more than 1000"),
    (["vitrm-train", "--n-sup", "2000"], "(it is '2000')"),
    (["vitrm-train", "--model", "resnet18", "--image-size", "99999"], "image-size 99999 is more than 16384"),
    (["vitrm-eval", "x", "--most", "5000"], "(it is '5000')"),
    (["interventions", "--draws", "99999"], "(it is '99999')"),
    (["probe", "--test-n", "5"], "--test-n goes with --test"),
    (["raptor-eval", "x", "--probe-train", "samples", "--probe-test-n", "5"], "goes with --probe-test"),
    (["phases", "--init", "random", "--weights", "FILE"], "--weights and --init random exclude each other"),
    (["phases", "--model", ""], "the name of the model is empty; `brdyn models` lists the names"),
    (["raptor-eval", " "], "the name of the model is empty"),
    (["phases", "--weights-key", "x"], "--weights-key 'x' chooses in a file; give that file by --weights"),
    (["phases", "--weights", "NOWHERE.pth"], "--weights 'NOWHERE.pth': no such file"),
    (["phases", "--images", "NOWHERE"], "no images at 'NOWHERE': no such file or folder"),
    (["phases", "--images", ""], "no images at ''"),
    *[([name, "--resume", "--out", "USED"], "is not empty") for name in ("raptor-fit", "vit-train", "vitrm-train")],
    (["vitrm-train", "--grid", "n=1", "--resume", "--out", "USED"], "is not empty"),
    (["phases", "--images", "nowhere/"], "no images at 'nowhere/'"),
    (["phases", "--images", "nowhere/@train"], "no images at 'nowhere/@train'"),
    (["phases", "--images", "a/b.png"], "no images at 'a/b.png'"),
    (["probe", "--test", "./NOWHERE"], "no images at './NOWHERE'"),
    (["raptor-eval", "x", "--probe-train", "NOWHERE"], "no images at 'NOWHERE'"),
    (["vit-train", "--data", "NOWHERE"], "no images at 'NOWHERE'"),
    (["vitrm-eval", "x", "--data", "NOWHERE"], "no images at 'NOWHERE'"),
    (["report", "--fast", "--thorough"], "--fast and --thorough exclude each other"),
    (["report", "--model", "a", "--model", "a"], "model 'a' is named twice"),
    (["report", "--model", ""], "the name of the model is empty"),
    (["report", "--twin", "--init", "random"], "--twin and --init random are the same networks"),
    (["report", "--fit-raptor", "2", "--dtype", "bfloat16"], "--fit-raptor fits in float32"),
    (["report", "--out", "USED"], "the output folder 'USED' is not empty"),
    (["report", "--weights", "FILE", "--model", "a", "--model", "b"], "--weights is of one model"),
    (["report", "--images", "NOWHERE"], "no images at 'NOWHERE'"),
    (
        ["phases", "--model", "m.py:build"],
        "'m.py:build' runs code from 'm.py'; pass --allow-code if you trust",
    ),
    (["phases", "--model", "x", "--teacher", "m.py:build"], "'m.py:build' runs code from 'm.py'"),
    (["report", "--model", "a", "--model", "m.py:build"], "'m.py:build' runs code from 'm.py'"),
    (["raptor-eval", "m.py:build"], "'m.py:build' runs code from 'm.py'"),
    (["models", "m.py:build"], "'m.py:build' runs code from 'm.py'; pass --allow-code"),
    (["models", "x", "--image-size", "abc"], "--image-size 'abc' is neither"),
    (["phases", "--bogus"], "No such option: --bogus"),
    (["nonsense"], "nonsense"),
]
COMMANDS = (
    "models", "report", "phases", "dynamics", "perturb", "interventions", "splice", "raptor-fit", "raptor-eval",
    "raptor-rank", "probe", "vit-train", "vitrm-train", "vitrm-eval",
)  # fmt: skip
SCRIPT = """
import contextlib, io, json, sys
from brdyn.cli import main
for arguments in json.load(sys.stdin):
    sys.argv = ["brdyn", *arguments]
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            main()
        except SystemExit as end:
            print(json.dumps([end.code, said.getvalue(), "torch" in sys.modules]), file=sys.__stdout__)
"""


def answers(arguments, folder):
    """Exit code, standard error, and whether torch is there by then, of many commands in one new process."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], input=json.dumps(arguments), capture_output=True, text=True, cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_plain_mistakes_are_told_without_torch(tmp_path):
    (tmp_path / "USED").mkdir()
    (tmp_path / "USED" / "x").touch()
    (tmp_path / "FILE").touch()
    (tmp_path / "DANGLING").symlink_to("nothing")
    (tmp_path / "OTHER.json").write_text("{}")
    (tmp_path / "DEEP.json").write_text("[" * 100_000)
    of = {"model": "x", "provenance": {"model": {"digest": "0"}}}
    (tmp_path / "PHASES.json").write_text(json.dumps({**segment(np.eye(3)).to_dict(), **of}))
    before = sorted(path.name for path in tmp_path.rglob("*"))
    found = answers([arguments for arguments, _ in CASES], tmp_path)
    assert len(found) == len(CASES)
    for (arguments, words), (code, said, torch_is_there) in zip(CASES, found, strict=True):
        assert code == 2, (arguments, said)
        assert said.startswith("brdyn: error: "), (arguments, said)
        assert said.count("\n") == 1, (arguments, said)
        assert words in said, (arguments, said)
        assert not torch_is_there, arguments
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


OF = {name: [file for file, of in KINDS.items() if name in of.writer] for name in COMMANDS}


def test_overwrite_is_of_the_same_commands_result_alone(tmp_path):
    """Every command over the result of every other, over an unfinished run of another, and over a model."""
    asked, expected = [], []
    for name in COMMANDS[1:]:
        argument = ["x"] if name in ("raptor-eval", "vitrm-eval") else []
        own = OF[name][0]
        for file in KINDS:
            if file not in OF[name]:
                folder = tmp_path / f"{name}-{file}"
                folder.mkdir()
                (folder / file).write_text("{}")
                asked.append([name, *argument, "--out", str(folder), "--overwrite"])
                expected.append((own, f"holds the result of {KINDS[file].writer} ({file})"))
        begun = tmp_path / f"{name}-begun"
        begun.mkdir()
        other = "fit.json" if own == "train.json" else "train.json"
        (begun / "unfinished.json").write_text(json.dumps({"result": other, "leaves": []}))
        asked.append([name, *argument, "--out", str(begun), "--overwrite"])
        expected.append((own, f"holds an unfinished run of {KINDS[other].writer}"))
        model = tmp_path / f"{name}-model"
        model.mkdir()
        (model / "config.json").write_text("{}")
        asked.append([name, *argument, "--out", str(model), "--overwrite"])
        expected.append((own, "holds a model (config.json)"))
    for file, more, own in (("grid.json", [], "train.json"), ("train.json", ["--grid", "n=1"], "grid.json")):
        folder = tmp_path / f"grid-{file}"
        folder.mkdir()
        (folder / file).write_text("{}")
        asked.append(["vitrm-train", *more, "--out", str(folder), "--overwrite"])
        expected.append((own, f"holds the result of {KINDS[file].writer} ({file})"))
    asked += [[*line, "--resume"] for line in asked if line[0] in RESUMABLE]
    expected += [words for line, words in zip(asked, expected, strict=False) if line[0] in RESUMABLE]
    before = {path: path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
    for arguments, (own, words), (code, said, torch_is_there) in zip(
        asked, expected, answers(asked, tmp_path), strict=True
    ):
        assert (code, torch_is_there) == (2, False), (arguments, said)
        assert f"{words}; {KINDS[own].writer} writes to a folder of its own" in said, (
            arguments,
            said,
        )
    assert {path: path.read_text() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_every_result_is_of_a_command():
    """Each command but `models` has one, and there is no other name for it in the code."""
    assert all(OF[name] for name in COMMANDS[1:])
    assert not OF["models"]


def test_help_of_every_command_needs_no_torch(tmp_path):
    for name, (code, said, torch_is_there) in zip(
        COMMANDS, answers([[name, "--help"] for name in COMMANDS], tmp_path), strict=True
    ):
        assert (code, said, torch_is_there) == (0, "", False), name


def test_names_without_torch_are_those_of_what_there_is():
    assert tuple(choices.SIMILARITIES) == tuple(SIMILARITIES)
    assert [as_dtype(name) for name in choices.DTYPES] == [torch.float32, torch.bfloat16, torch.float16]


def test_every_intervention_is_one():
    made = {operation.kind.partition("_")[0] for operation in operations(choices.KINDS, 6, [3], 2)}
    assert made == set(choices.KINDS)


LATE = [  # what takes the model's layers, width or tokens to tell, of which its description is enough
    (["phases", "--k", "13"], "k=13 phases need at least 13 layers; 'vit_tiny_patch16_224' has 12"),
    (["phases", "--min-size", "13"], "min_size=13 is more than the 12 layers"),
    (["phases", "--tokens", "registers"], "this model has no 'registers' tokens"),
    (["dynamics", "--k", "13"], "k=13 phases need"),
    (["dynamics", "--rank", "193"], "rank 193 is not from 1 to the model's width, 192"),
    (["dynamics", "--phases", "PHASES.json"], "'PHASES.json' is of 'x' with 3 layers, and this is"),
    (["perturb", "--k", "13"], "k=13 phases need"),
    (["perturb", "--layers", "0,13"], "layer 13 is not from 0 (the embedding) to 12"),
    (["perturb", "--tokens", "registers"], "this model has no 'registers' tokens"),
    (["interventions", "--k", "13"], "k=13 phases need"),
    (["raptor-fit", "--k", "13"], "k=13 phases need"),
    (["raptor-fit", "--boundaries", "7,3"], "boundaries 7, 3 do not increase from 1 to 11"),
    (["raptor-fit", "--boundaries", "1", "--partition-seed", "12", "--partition", "random-shuffle"],
     "--partition-seed 12: there are"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "words"), LATE)
def test_what_the_model_has_is_told_before_its_weights_are_read(
    arguments, words, run, tmp_path, noise_folder, monkeypatch
):
    of = {"model": "x", "provenance": {"model": {"digest": "0"}}}
    (tmp_path / "PHASES.json").write_text(json.dumps({**segment(np.eye(3)).to_dict(), **of}))
    monkeypatch.chdir(tmp_path)

    def fail(*_, **__):
        raise AssertionError("the weights are read")

    monkeypatch.setattr("brdyn.models.load_model", fail)
    done = run(*arguments, "--model", "vit_tiny_patch16_224", "--images", noise_folder)
    assert_one_line_error(done, 2, words)
    assert not (tmp_path / "runs").exists()
