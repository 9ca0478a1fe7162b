"""`brdyn raptor-import` as a user meets it."""

from brdyn.models import load_model
from tests.cli.commands import assert_one_line_error
from tests.raptor.test_official import written


def test_it_writes_a_raptor(run, tmp_path, monkeypatch, tiny_weights):
    path, _ = written(tmp_path, monkeypatch, width=192)
    teacher = ["--teacher-model", "vit_tiny_patch16_224", "--weights", tiny_weights, "--image-size", "32"]
    out = tmp_path / "raptor"
    done = run("raptor-import", path, *teacher, "--out", out)
    assert done.returncode == 0, done.stderr
    assert "2 blocks for layers 1-3, 4-12 of vit_tiny_patch16_224" in done.stdout
    model = load_model(str(out), weights=tiny_weights)
    assert (model.k, model.info.image_size) == (2, (32, 32))
    assert_one_line_error(run("raptor-import", path, *teacher, "--out", out), 2, "holds something already")
    assert_one_line_error(run("raptor-import", tmp_path / "none.pt", "--out", tmp_path / "o"), 2, "none.pt")


def test_a_file_that_is_none_is_refused_before_its_teacher_is_fetched(run, tmp_path, monkeypatch):
    fetched = []
    monkeypatch.setattr("brdyn.models.load_model", lambda *names, **options: fetched.append(names))
    path = tmp_path / "probe.json"
    path.write_text("{}")
    assert_one_line_error(run("raptor-import", path, "--out", tmp_path / "o"), 1, "it is a text in JSON")
    assert not fetched
