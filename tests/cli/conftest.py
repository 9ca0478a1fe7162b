"""A small model by file, and commands that run in this process."""

import sys

import pytest
import timm
from safetensors.torch import save_file

from brdyn.cli import main
from tests.cli.commands import Done
from tests.conftest import leave_undrawn, leave_unrendered, scramble


@pytest.fixture
def run(capfd, monkeypatch):
    """Run a command in this process (a fresh one would import torch each time).

    Its pictures are rendered unless they are not `drawn` (none is built), or not `rendered` (their files are empty).
    """

    def call(*arguments, drawn=True, rendered=True):
        monkeypatch.setattr(sys, "argv", ["brdyn", *map(str, arguments)])
        capfd.readouterr()
        with monkeypatch.context() as patch:
            if not rendered:
                leave_unrendered(patch)
            if not drawn:
                leave_undrawn(patch)
            with pytest.raises(SystemExit) as caught:
                main()
        return Done.of(caught.value.code, *capfd.readouterr())

    return call


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory):
    model = timm.create_model("vit_tiny_patch16_224", num_classes=0)
    scramble(model)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_file(model.state_dict(), path)
    return path


@pytest.fixture
def tiny_options(tiny_weights, noise_folder, tmp_path):
    return [
        "--model", "vit_tiny_patch16_224", "--weights", tiny_weights, "--image-size", "64",
        "--images", noise_folder, "--workers", "0", "--out", tmp_path / "out",
    ]  # fmt: skip


@pytest.fixture
def labelled(tmp_path, noise_folder):
    """The noise pictures in a parquet file, in three classes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    cells = [{"bytes": path.read_bytes(), "path": None} for path in sorted(noise_folder.iterdir())]
    labels = [number % 3 for number in range(len(cells))]
    pq.write_table(pa.table({"image": cells, "label": labels}), tmp_path / "labelled.parquet")
    return tmp_path / "labelled.parquet"
