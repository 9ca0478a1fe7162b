"""Odd weights and odd options: one line, or a right result that says what could not be measured."""

import json

import pytest
from safetensors.torch import load_file, save_file

from tests.cli.commands import assert_one_line_error

COMMANDS = {
    "phases": [],
    "dynamics": [],
    "perturb": ["--layers", "0,6", "--eps", "0.1"],
    "interventions": ["--kinds", "delete"],
    "raptor-fit": ["--steps", 2, "--batch-size", 2],
    "probe": ["--seeds", 1],
}


@pytest.fixture
def changed(tiny_weights, tmp_path):
    """The small model with weights changed."""

    def make(change):
        state = load_file(tiny_weights)
        change(state)
        save_file(state, tmp_path / "changed.safetensors")
        return tmp_path / "changed.safetensors"

    return make


def options(weights, images, out, n=6):
    return [
        "--model", "vit_tiny_patch16_224", "--weights", weights, "--image-size", "64", "--images", images, "-n", n,
        "--workers", 0, "--out", out,
    ]  # fmt: skip


def spoil(key, value):
    def change(state):
        state[key].view(-1)[3] = value

    return change


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("command", COMMANDS)
def test_weights_that_are_not_finite_are_named(run, changed, labelled, tmp_path, command, value):
    weights = changed(spoil("blocks.5.mlp.fc1.bias", value))
    done = run(command, *COMMANDS[command], *options(weights, labelled, tmp_path / "out", 12))
    assert_one_line_error(done, 1, "blocks.5.mlp.fc1.bias in", "that are not finite numbers")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_states_that_overflow_name_the_layer(run, changed, labelled, tmp_path, command):
    weights = changed(lambda state: state["blocks.5.mlp.fc2.weight"].fill_(3e38))
    done = run(command, *COMMANDS[command], *options(weights, labelled, tmp_path / "out", 12))
    assert_one_line_error(done, 1, "the output of layer 6 of 'vit_tiny_patch16_224' is not finite", "check the weights")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["interventions", "probe"])
def test_a_norm_that_overflows_is_named_where_it_counts(run, changed, labelled, tmp_path, command):
    weights = changed(lambda state: state["norm.weight"].fill_(3e38))
    done = run(command, *COMMANDS[command], *options(weights, labelled, tmp_path / "out", 12))
    assert_one_line_error(done, 1, "the final norm of 'vit_tiny_patch16_224'", "check the weights")


def test_states_of_zeros_have_no_similarity(run, changed, noise_folder, tmp_path):
    weights = changed(lambda state: [value.zero_() for value in state.values()])
    for command in ("phases", "dynamics"):
        done = run(command, *options(weights, noise_folder, tmp_path / "out", 2))
        assert_one_line_error(done, 1, "cosine is not defined at layer 1", "all zero")


def still(state):
    for key, value in state.items():
        if key.startswith("blocks"):
            value.zero_()


def test_layers_that_do_nothing_are_one_phase_and_have_no_ranks(run, changed, noise_folder, tmp_path):
    weights = changed(still)
    done = run("phases", *options(weights, noise_folder, tmp_path / "out", 2))
    assert done.returncode == 0, done.stderr
    assert "1 phase: layers 1-12" in done.stdout
    assert "the layers do not differ" in done.stdout
    found = json.loads((tmp_path / "out" / "phases.json").read_text())
    assert (found["k"], found["boundary_frequency"]) == (1, None)
    common = options(weights, noise_folder, tmp_path / "moves", 2)
    done = run("dynamics", *common, "--measures", "speed,update,turning")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "no update moves a token" in done.stdout
    found = json.loads((tmp_path / "moves" / "dynamics.json").read_text())
    assert found["speed"]["cls"] == pytest.approx([0.0] * 12, abs=1e-3)
    assert found["effective_rank"] == [None] * 12


@pytest.mark.parametrize(
    ("command", "extra", "words"),
    [
        ("phases", ["--seed", 2**63], ("seed 9223372036854775808", "from 0 to 2^63 - 1")),
        ("raptor-fit", ["--seed", -1], ("seed -1", "from 0 to 2^63 - 1")),
        ("phases", ["--bootstrap", 10**9], ("--bootstrap", "(it is '1000000000')")),
        ("phases", ["--bootstrap", 1], ("bootstrap=1", "use 0 for none")),
        ("phases", ["--min-gain", "nan"], ("--min-gain nan is not a finite number",)),
        ("phases", ["--method", "recursive", "--eps", "inf"], ("--eps inf is not a finite number",)),
        ("perturb", ["--eps", "nan"], ("eps nan", "from 0 up")),
        ("perturb", ["--eps", "0.1,-1"], ("eps -1", "from 0 up")),
        ("dynamics", ["--ridge", "nan"], ("--ridge nan is not a finite number",)),
        ("dynamics", ["--rank", 10**9], ("rank 1000000000", "192")),
    ],
)
def test_odd_options_are_refused(run, tiny_weights, noise_folder, tmp_path, command, extra, words):
    done = run(command, *options(tiny_weights, noise_folder, tmp_path / "out", 2), *extra)
    assert_one_line_error(done, 2, *words)
    assert not (tmp_path / "out").exists()


def test_noise_beyond_float32_is_an_error_of_the_run(run, tiny_weights, noise_folder, tmp_path):
    done = run("perturb", *options(tiny_weights, noise_folder, tmp_path / "out", 2), "--eps", "1e30", "--layers", "0")
    assert_one_line_error(done, 1, "noise of 1e+30", "use a smaller --eps")
    assert "--dtype float32" not in done.stderr


def test_what_was_not_resampled_is_said_in_good_words(run, tiny_weights, noise_folder, tmp_path):
    done = run("phases", *options(tiny_weights, noise_folder, tmp_path / "none", 3), "--bootstrap", 0)
    assert "stability is not known; resampled: none (not asked for)" in done.stdout
    found = json.loads((tmp_path / "none" / "phases.json").read_text())
    assert found["provenance"]["bootstrap"] == {"replicates": 0, "unit": "none (not asked for)"}
    done = run("phases", *options(tiny_weights, noise_folder, tmp_path / "one", 1))
    assert "stability is not known; resampled: none (only 1 image)" in done.stdout
