"""Mistakes that the options alone show are told before torch is imported, which takes seconds."""

import json
import subprocess
import sys

import pytest

from brdyn import choices
from brdyn.interventions.operations import operations
from brdyn.measures import SIMILARITIES
from brdyn.measures.dynamics import CURVES
from brdyn.runtime import DTYPES
from tests.cli.commands import ROOT

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
    (["perturb", "--eps", "-1"], "eps -1.0: the relative size of the noise is a number from 0 up"),
    (["perturb", "--eps", "nan"], "eps nan:"),
    (["perturb", "--layers", "x"], "--layers 'x' is not a list of layers"),
    (["interventions", "--kinds", "swap,twist"], "unknown intervention 'twist'; choose from swap, delete"),
    (["dynamics", "--measures", "speed,wobble"], "unknown measure 'wobble'; choose from norm, convergence"),
    (["vit-train", "--keep", "x"], "--keep 'x': 'x' is neither an epoch"),
    (["vitrm-train", "--grid", "n=x"], "--grid 'n=x': values are positive whole numbers"),
    (["vitrm-train", "--grid", "n=²"], "--grid 'n=²': values are positive whole numbers"),
    (["vit-train", "--tracker", "x"], "unknown tracker 'x'; choose one of none, tensorboard, wandb"),
    (["vit-train", "--model", "x"], "unknown ViT 'x'; choose one of vit-small"),
    (["vitrm-train", "--model", "x"], "unknown network 'x'; choose one of vitrm"),
    (["raptor-fit", "--partition", "x"], "unknown partition 'x'; choose one of maxcut"),
    (["raptor-fit", "--boundaries", "x"], "--boundaries 'x' is not a list of layers such as 7,10"),
    (["raptor-fit", "--boundaries", "2", "--k", "2"], "--boundaries says it all; drop --k"),
    (["dynamics", "--phases", "NOWHERE.json"], "--phases 'NOWHERE.json': no such file"),
    (["interventions", "--phases", "USED"], "--phases 'USED': not a file"),
    (["raptor-fit", "--phases", LONG], "file name too long"),
    (["phases", "--weights", "NOWHERE.pth"], "--weights 'NOWHERE.pth': no such file"),
    (["phases", "--images", "NOWHERE"], "no images at 'NOWHERE': no such file or folder"),
    (["phases", "--images", ""], "no images at ''"),
    (["phases", "--images", "a/b.png"], "no images at 'a/b.png'"),
    (["probe", "--test", "./NOWHERE"], "no images at './NOWHERE'"),
    (["raptor-eval", "x", "--probe-train", "NOWHERE"], "no images at 'NOWHERE'"),
    (["vit-train", "--data", "NOWHERE"], "no images at 'NOWHERE'"),
    (["vitrm-eval", "x", "--data", "NOWHERE"], "no images at 'NOWHERE'"),
    (["models", "x", "--image-size", "abc"], "--image-size 'abc' is neither"),
    (["phases", "--bogus"], "No such option: --bogus"),
    (["nonsense"], "nonsense"),
]
COMMANDS = (
    "models", "phases", "dynamics", "perturb", "interventions", "raptor-fit", "raptor-eval", "probe", "vit-train",
    "vitrm-train", "vitrm-eval",
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


def test_help_of_every_command_needs_no_torch(tmp_path):
    for name, (code, said, torch_is_there) in zip(
        COMMANDS, answers([[name, "--help"] for name in COMMANDS], tmp_path), strict=True
    ):
        assert (code, said, torch_is_there) == (0, "", False), name


@pytest.mark.parametrize(
    ("names", "things"),
    [(choices.SIMILARITIES, SIMILARITIES), (choices.CURVES, CURVES), (choices.DTYPES, DTYPES)],
)
def test_names_without_torch_are_those_of_what_there_is(names, things):
    assert tuple(names) == tuple(things)


def test_every_intervention_is_one():
    made = {operation.kind.partition("_")[0] for operation in operations(choices.KINDS, 6, [3], 2)}
    assert made == set(choices.KINDS)
