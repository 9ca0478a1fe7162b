"""Options from a file, and those used in the result."""

import json

import pytest

import brdyn
from tests.cli.commands import assert_one_line_error

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture
def config(tiny_weights, noise_folder, tmp_path):
    """A TOML file for two commands."""
    path = tmp_path / "brdyn.toml"
    path.write_text(
        f"""
        model = "vit_tiny_patch16_224"
        weights = "{tiny_weights}"
        image-size = 64
        images = "{noise_folder}"
        workers = 0
        n = 6
        seed = 5

        [phases]
        k = 3
        bootstrap = 0
        min_size = 2

        [perturb]
        eps = [0.1, 0.2]
        """
    )
    return path


def test_options_of_a_file_are_used_and_those_typed_count_more(run, config, tmp_path):
    out = tmp_path / "out"
    done = run("phases", "--config", config, "--seed", 7, "--out", out)
    assert done.returncode == 0, done.stderr
    found = brdyn.read(out)
    assert (found.k, found.min_size) == (3, 2)
    origin = found.provenance
    assert origin.n_images == 6
    assert origin.details["seed"] == 7
    options = origin.details["options"]
    assert options["seed"] == 7
    assert options["k"] == "3"
    assert options["image_size"] == "64"
    assert options["out"] == str(out)
    assert options["method"] == "contiguous"  # also those that nobody gave
    assert options["weights_key"] is None
    assert not {"config", "json", "quiet"} & set(options)

    again = run("phases", "--config", out / "phases.json", "--out", tmp_path / "again")
    assert again.returncode == 0, again.stderr
    repeated = brdyn.read(tmp_path / "again")
    assert repeated == found
    assert repeated.provenance.details["options"] == {**options, "out": str(tmp_path / "again")}
    content = json.loads((out / "phases.json").read_text())
    del content["provenance"]["options"]  # as earlier versions
    (out / "phases.json").write_text(json.dumps(content))
    assert brdyn.read(out) == found
    done = run("phases", "--config", out / "phases.json", "--out", tmp_path / "none")
    assert_one_line_error(done, 2, "does not tell the options", "earlier version")


def test_a_result_does_not_hand_on_what_one_run_was_allowed(run, config, tmp_path):
    """To replace a result, and to run code; a file that somebody wrote may say the former."""
    (tmp_path / "mine.py").write_text("raise RuntimeError('run')")
    config.write_text(config.read_text().replace("seed = 5", "seed = 5\noverwrite = true"))
    out = tmp_path / "out"
    allowed = ["--allow-code", "--allow-pickle"]
    for _ in range(2):
        done = run("phases", "--config", config, *allowed, "--out", out)
        assert done.returncode == 0, done.stderr
    options = brdyn.read(out).provenance.details["options"]
    assert (options["overwrite"], options["allow_code"], options["allow_pickle"]) == (True, True, True)
    assert_one_line_error(run("phases", "--config", out / "phases.json"), 2, "is not empty")
    content = json.loads((out / "phases.json").read_text())
    content["provenance"]["options"] |= {"model": f"{tmp_path / 'mine.py'}:build", "weights": None}
    (tmp_path / "sent.json").write_text(json.dumps(content))
    sent = ["--config", tmp_path / "sent.json", "--out", tmp_path / "again"]
    assert_one_line_error(run("phases", *sent), 2, "--allow-code")
    assert "RuntimeError: run" in run("phases", *sent, "--allow-code").stderr


def test_a_list_is_what_commas_are(run, config, tmp_path):
    done = run("perturb", "--config", config, "--layers", "0", "--tokens", "cls", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert sorted(set(brdyn.read(tmp_path / "out").angles["eps"])) == [0.1, 0.2]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('imges = "x"', ["'imges' is no option of brdyn phases", "the nearest is 'images'"]),
        ("[phases]\nminsize = 2", ["'minsize' is no option of brdyn phases", "the nearest is 'min_size'"]),
        ("[phase]\nk = 2", ["'phase' is no option of brdyn phases", "the nearest is 'phases'"]),
        ("zzz = 1", ["'zzz' is no option of brdyn phases; see `brdyn phases --help`"]),
        ("config = 'other.toml'", ["'config' is no option"]),
        ("k = [[1]]", ["'k' is neither a number"]),
        ("images = 1979-05-27", ["'images' is neither a number"]),
        ("n = 'many'", ["--n", "many"]),
        ("n = 0", ["--n"]),
        ("n = true", ["'n' takes a value, and is given true or false"]),
        ("seed = false", ["'seed' takes a value"]),
        ("images = [true]", ["'images' takes a value"]),
        ("image-size = 64\nimage_size = 32", ["'image-size' and 'image_size' are the same option; keep one"]),
        ("[phases]\nn = 2\nformat = 'svg'\nformats = 'png'", ["'format' and 'formats' are the same option"]),
        ("overwrite = 'perhaps'", ["--overwrite", "perhaps"]),
        ("allow-code = true", ["'allow-code' is not taken from a file; type --allow-code"]),
        ("allow_pickle = true", ["'allow_pickle' is not taken from a file; type --allow-pickle"]),
        ("k = ", ["cannot read --config"]),
    ],
)
def test_a_file_that_is_wrong_is_told_in_a_line(run, tmp_path, text, words):
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    assert_one_line_error(run("phases", "--config", path), 2, *words)


def test_a_file_that_is_not_there(run, tmp_path):
    assert_one_line_error(run("phases", "--config", tmp_path / "none.toml"), 2, "none.toml", "No such file")
    (tmp_path / "list.json").write_text("[]")
    assert_one_line_error(run("phases", "--config", tmp_path / "list.json"), 2, "list.json")


def test_a_positional_argument_may_be_in_the_file(run, tmp_path):
    (tmp_path / "eval.toml").write_text('run = "nowhere"\ndevice = "tpu"')
    done = run("raptor-eval", "--config", tmp_path / "eval.toml")
    assert_one_line_error(done, 2, "unknown device 'tpu'")
