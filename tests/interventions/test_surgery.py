"""Surgery on depth: equal to full passes of the changed model, complete, and harmless where nothing changes."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import timm
import torch
from scipy import stats

from brdyn import read, token_dynamics
from brdyn.data import Batch, load_images
from brdyn.errors import BrdynError, UsageError
from brdyn.interventions import Surgery, delete, reorder, replace, swap
from brdyn.interventions.operations import operations
from brdyn.interventions.surgery import SurgeryRun, layer_surgery, run_order
from brdyn.models import Preprocessing, timm_family
from brdyn.models.loaded import Loaded
from brdyn.models.request import ModelRequest
from brdyn.phases import segment
from brdyn.trajectory import Stream, capture
from tests.conftest import scramble
from tests.interventions.stub import StubViT


def batch(count=6, size=32, labels=None):
    pictures = torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))
    return Batch(pictures, torch.arange(count), labels)


def phases_of(*sizes):
    own = np.repeat(np.arange(len(sizes)), sizes)
    return segment((own[:, None] == own[None]).astype(float), k=len(sizes))


def surgery(model, inputs, kinds, phases, **options):
    run = SurgeryRun(model, list(operations(kinds, model.depth, phases.boundaries, **options)))
    run.update(capture(model, inputs))
    return Surgery(run.table(), None, model.depth, phases)


def test_equal_to_full_passes(tiny):
    inputs, phases = batch(), phases_of(2, 2)
    found = surgery(tiny, inputs, ("swap", "delete", "replace"), phases)
    contexts = {"swap": swap, "delete": delete, "replace": replace}
    clean = tiny(inputs.images)
    for _, row in found.table.query("measure == 'relative_error'").iterrows():
        with contexts[row["kind"]](tiny, *row["layers"]):
            changed = tiny(inputs.images)
        part = tiny.tokens[row["readout"]]
        first, second = clean[:, part].mean(1).double(), changed[:, part].mean(1).double()
        error = (second - first).norm(dim=1) / first.norm(dim=1)
        assert row["mean"] == pytest.approx(error.mean().item(), rel=1e-4)
        assert row["sd"] == pytest.approx(error.std().item(), rel=1e-2, abs=1e-5)
        angle = found.table.query("measure == 'angle' and kind == @row['kind'] and readout == @row['readout']")
        angle = angle[angle["layers"] == row["layers"]]["mean"].item()
        cosine = (first * second).sum(1) / first.norm(dim=1) / second.norm(dim=1)
        assert angle == pytest.approx(cosine.acos().mean().item(), rel=1e-3)


def test_matrices_are_complete(tiny):
    found = surgery(tiny, batch(), ("swap", "replace"), phases_of(2, 2))
    swaps, replacements = found.matrix("swap", "cls"), found.matrix("replace", "cls")
    np.testing.assert_array_equal(swaps, swaps.T)
    assert (np.diag(swaps) == 0).all()
    assert (swaps[~np.eye(4, dtype=bool)] > 0).all()
    assert not np.allclose(replacements, replacements.T)
    row = found.rows("replace", "cls")
    assert replacements[1, 3] == row[row["layers"] == (2, 4)]["mean"].item()


def test_runs_begin_where_the_order_differs(tiny):
    """The blocks before the first change are never run again."""
    clean, calls = capture(tiny, batch()), []
    for number, block in enumerate(tiny.blocks, 1):
        block.register_forward_hook(lambda *_, number=number: calls.append(number))
    run_order(tiny, clean, (1, 2, 4, 3))
    assert calls == [4, 3]
    calls.clear()
    assert torch.equal(run_order(tiny, clean, (1, 2, 3)), clean.states[3])
    assert torch.equal(run_order(tiny, clean, (1, 2, 3, 4)), clean.states[4])
    assert calls == []


def test_operations_are_all_there_and_different():
    chosen = list(operations(("swap", "delete", "replace", "shuffle"), 12, (2, 6, 9, 11), draws=5))
    counts = {kind: sum(o.kind == kind for o in chosen) for kind in {o.kind for o in chosen}}
    # Phases of 2, 4, 3, 2 and 1 layers: 1 + 5 + 5 + 1 orders within.
    assert counts == {
        "swap": 66,
        "delete": 12,
        "replace": 132,
        "shuffle_within": 12,
        "shuffle_across": 4 + 5 + 5 + 4,
    }
    assert len({(o.kind, o.phase, o.order) for o in chosen}) == len(chosen)
    own = [0, 0, 1, 1, 1, 1, 2, 2, 2, 3, 3, 4]
    phases = [set(range(1, 3)), set(range(3, 7)), set(range(7, 10)), set(range(10, 12)), {12}]
    for operation in chosen:
        moved = {layer for step, layer in enumerate(operation.order, 1) if layer != step}
        if operation.kind == "shuffle_within":
            assert moved <= phases[operation.phase - 1]
            assert moved
        if operation.kind == "shuffle_across":
            assert len(operation.layers) == len(phases[operation.phase - 1])
            assert not any(phase.issuperset(operation.layers) for phase in phases)
            assert moved <= set(operation.layers)
            assert any(own[step] != own[layer - 1] for step, layer in enumerate(operation.order))


@pytest.mark.parametrize(("boundaries", "draws"), [((3,), 10), ((4, 7, 10), 200), ((6,), 730), ((1, 11), 7)])
def test_however_many_shuffles_are_asked_for(boundaries, draws):
    """Windows overlap and share orders: asking for more than there are must end, with all of them for short phases."""
    chosen = list(operations(("shuffle",), 12, boundaries, draws))
    for phase in range(1, len(boundaries) + 2):
        for kind in ("shuffle_within", "shuffle_across"):
            orders = [o.order for o in chosen if (o.kind, o.phase) == (kind, phase)]
            assert len(set(orders)) == len(orders) <= draws
    if boundaries == (3,):  # the 3 layers' other orders; the orders of 2-4 and 3-5 that move a layer over the boundary
        kinds = [o.kind for o in chosen if o.phase == 1]
        assert kinds.count("shuffle_within") == 5
        assert kinds.count("shuffle_across") == 7  # all but the swap within, of 5 each; exchanging 3 and 4 counts once


def test_layers_that_commute_do_no_harm_and_others_do():
    """Phase 1 scales (any order is the same), phase 2 shifts; a scale and a shift do not commute."""
    functions = [lambda x: 2 * x, lambda x: 3 * x, lambda x: x + 1, lambda x: x + 2]
    found = surgery(StubViT(functions), batch(size=4), ("swap", "shuffle", "delete"), phases_of(2, 2))
    swaps = found.matrix("swap", "patches")
    assert swaps[0, 1] == pytest.approx(0, abs=1e-6)
    assert swaps[2, 3] == pytest.approx(0, abs=1e-6)
    assert swaps[:2, 2:].min() > 0.1
    assert found.rows("shuffle_within", "patches")["mean"].max() == pytest.approx(0, abs=1e-6)
    assert found.rows("shuffle_across", "patches")["mean"].min() > 0.1
    assert found.rows("delete", "cls")["mean"].min() > 0.05


def test_accuracy_and_agreement():
    """A head that reads the first coordinates of cls, against predictions made by hand."""
    functions = [lambda x: 2 * x, lambda x: x.flip(-1), lambda x: x + torch.arange(12.0)]
    model = StubViT(functions, classes=12)
    labels = torch.tensor([11, 11, 3, 11, 0, 11])
    inputs = batch(size=4, labels=labels)
    run = SurgeryRun(model, list(operations(("swap",), 3, ())))
    run.update(capture(model, inputs))
    intact = model(inputs.images)[:, 0].argmax(-1)
    assert run.intact.arrays()["mean"][0] == pytest.approx((intact == labels).double().mean().item())
    table = run.table().query("readout == 'head'")
    found = Surgery(run.table(), 0.25, 3, phases_of(3))
    assert np.diag(found.matrix("swap", "head", "agreement")).tolist() == [1, 1, 1]
    assert np.diag(found.matrix("swap", "head", "accuracy")).tolist() == [0.25] * 3
    for pair in ((1, 2), (1, 3), (2, 3)):
        with swap(model, *pair):
            guess = model(inputs.images)[:, 0].argmax(-1)
        rows = table[table["layers"] == pair].set_index("measure")["mean"]
        assert rows["agreement"] == pytest.approx((guess == intact).double().mean().item())
        assert rows["accuracy"] == pytest.approx((guess == labels).double().mean().item())
    assert table["mean"].nunique() > 1
    for low, mean, high in table[["low", "mean", "high"]].to_numpy():
        expected = stats.binomtest(round(6 * mean), 6).proportion_ci(method="wilson")
        assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-6)


def timm_model(architecture, classes):
    """A small-input timm model with a head, every parameter random."""
    backbone = timm.create_model(architecture, img_size=32, num_classes=classes)
    scramble(backbone)
    loaded, request = Loaded(backbone, "0" * 64), ModelRequest(architecture)
    model = timm_family.adapt(request, "timm", loaded, "test", "none", Preprocessing((32, 32)))
    return model.requires_grad_(False)


def test_timm_head():
    """The head is timm's own, and labels beyond it are said."""
    model, inputs = timm_model("deit_tiny_distilled_patch16_224", 7), batch()
    assert model.classes == 7
    torch.testing.assert_close(model.logits(model(inputs.images)), model.backbone(inputs.images))
    assert model.logits(model(inputs.images)).shape == (6, 7)


def test_a_text_projection_is_no_head():
    projecting = timm_model("vit_xsmall_patch16_clip_224", 512)
    assert projecting.classes == 0
    assert projecting.logits(torch.zeros(1, 2, 256)) is None
    assert timm_model("vit_xsmall_patch16_clip_224", 1000).classes == 1000


def labelled(folder, tmp_path, labels):
    cells = [{"bytes": path.read_bytes(), "path": None} for path in sorted(folder.iterdir())][: len(labels)]
    pq.write_table(pa.table({"image": cells, "label": labels}), tmp_path / "labelled.parquet")
    return tmp_path / "labelled.parquet"


def head_of(classes):
    return StubViT([lambda x: 2 * x, lambda x: x.flip(-1), lambda x: x + 1], classes=classes)


@pytest.mark.parametrize("batch_size", [2, 6])
@pytest.mark.parametrize(
    ("labels", "note", "images"),
    [
        ([0, 1, 2, 3, 4, 5], "no accuracy: the images have a class 5 and the head 4 classes", 0),
        ([0, 1, -1, 3, -1, 2], "", 4),
        ([-1] * 6, "no accuracy: the images have no labels", 0),
    ],
)
def test_labels_that_are_not_the_heads(noise_folder, tmp_path, labels, note, images, batch_size):
    """Whatever the batches: accuracy over the labels that can be right, or none and a word why."""
    model = head_of(4)
    pictures = load_images(labelled(noise_folder, tmp_path, labels), model)
    found = layer_surgery(
        model, pictures, phases_of(2, 1), kinds=("delete",), stream=Stream(workers=0, batch_size=batch_size)
    )
    assert found.notes == ((note,) if note else ())
    accuracy = found.table.query("measure == 'accuracy'")
    assert set(accuracy["n_images"]) == ({images} if images else set())
    assert (found.intact_accuracy is None) == (images == 0)
    assert set(found.table.query("measure == 'agreement'")["n_images"]) == {6}


def test_named_classes_that_are_not_the_heads(noise_folder, tmp_path):
    """Three class folders and a head of four: the indices mean something else."""
    for number, path in enumerate(sorted(noise_folder.iterdir())[:6]):
        (tmp_path / "set" / f"class{number % 3}").mkdir(parents=True, exist_ok=True)
        path.rename(tmp_path / "set" / f"class{number % 3}" / path.name)
    model = head_of(4)
    found = layer_surgery(
        model,
        load_images(tmp_path / "set", model),
        phases_of(2, 1),
        kinds=("delete",),
        stream=Stream(workers=0),
    )
    assert found.notes == ("no accuracy: the images are of 3 classes and the head of 4",)
    assert found.intact_accuracy is None


def test_overflow_and_lack_of_memory_are_said(noise_folder, monkeypatch):
    model = StubViT([lambda x: x, lambda x: 1e30 * x, lambda x: x / 1e30])
    images = load_images(noise_folder, model, n=4)
    model = StubViT([lambda x: 1e30 * x, lambda x: x / 1e30, lambda x: x])
    with pytest.raises(BrdynError, match="not finite in float32"):
        layer_surgery(model, images, phases_of(2, 1), kinds=("replace",), stream=Stream(workers=0))

    def short(*_):
        raise torch.OutOfMemoryError

    monkeypatch.setattr("brdyn.interventions.surgery.run_order", short)
    with pytest.raises(BrdynError, match="out of memory on cpu while measuring; use a smaller `batch_size`"):
        layer_surgery(model, images, phases_of(2, 1), kinds=("delete",), stream=Stream(workers=0))


def test_over_a_set_of_images(tiny, noise_folder):
    images = load_images(noise_folder, tiny, n=9)
    found = layer_surgery(
        tiny, images, phases_of(2, 2), kinds=("swap", "shuffle"), stream=Stream(workers=0, batch_size=4)
    )
    assert set(found.tests) == {"cls", "patches"}
    matrix = found.matrix("swap", "cls")
    assert found.tests["cls"].within == pytest.approx((matrix[0, 1] + matrix[2, 3]) / 2)
    assert found.notes == ("no accuracy: the model has no classification head",)
    assert (found.table["n_images"] == 9).all()
    with reorder(tiny, [1]), pytest.raises(UsageError, match="allows no swap"):
        layer_surgery(tiny, images, phases_of(1), kinds=("swap",), stream=Stream(workers=0))
    with pytest.raises(UsageError, match="'twist'"):
        layer_surgery(tiny, images, phases_of(2, 2), kinds=("twist",))
    with pytest.raises(UsageError, match="at least 1"):
        layer_surgery(tiny, images, phases_of(2, 2), draws=0)


def test_neighbours_alone(tiny, noise_folder):
    """Swaps and replacements of layers that are at most so far apart."""
    near = [one.layers for one in operations(["swap", "replace"], 4, [], apart=1)]
    assert near == [(1, 2), (2, 3), (3, 4), (1, 2), (2, 1), (2, 3), (3, 2), (3, 4), (4, 3)]
    assert len(list(operations(["swap"], 4, [], apart=2))) == 5
    images = load_images(noise_folder, tiny, n=4)
    options = {"kinds": ["swap"], "stream": Stream(workers=0)}
    found, every = (layer_surgery(tiny, images, phases_of(2, 2), apart=apart, **options) for apart in (1, None))
    matrix, whole = found.matrix("swap", "cls"), every.matrix("swap", "cls")
    assert np.isnan(matrix[0, 2:]).all()
    np.testing.assert_allclose(matrix[[0, 1, 2], [1, 2, 3]], whole[[0, 1, 2], [1, 2, 3]], rtol=1e-5)
    assert set(found.tests.values()) == {None}  # not all pairs are there to compare
    with pytest.raises(UsageError, match="`apart=0`: layers are at least 1 apart"):
        layer_surgery(tiny, images, phases_of(2, 2), apart=0)


def test_what_repeats_a_run_is_kept(tiny, noise_folder, tmp_path):
    images, stream = load_images(noise_folder, tiny, n=4), Stream(workers=0)
    found = layer_surgery(tiny, images, kinds=["swap", "shuffle"], k=2, draws=3, apart=1, stream=stream)
    found.save(tmp_path / "out")
    kept = read(tmp_path / "out").provenance.details
    assert (kept["kinds"], kept["draws"], kept["apart"]) == (["swap", "shuffle"], 3, 1)
    dynamics = token_dynamics(tiny, images, measures=["speed", "norm"], leave_out=["norm"], stream=stream)
    assert dynamics.provenance.details["measures"] == ["speed"]
