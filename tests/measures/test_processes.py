"""What every measure says is of the images of all processes, not of the share of one."""

import pytest

from brdyn.choices import MEASURES
from brdyn.data import load_images
from brdyn.measures.contract import Asked, measure_class
from brdyn.trajectory import Stream, trajectories
from tests.conftest import tiny_vit


@pytest.mark.parametrize(("depth", "boundaries"), [(4, (2,)), (1, ())])
@pytest.mark.parametrize("name", MEASURES)
def test_two_processes_with_the_same_images_count_twice_as_many(name, depth, boundaries, noise_folder):
    """Of one block too, of which torchmetrics makes scalars."""
    model = tiny_vit(depth, classes=3)
    images = load_images(noise_folder, model, n=10)
    kind = measure_class(name)
    asked = Asked(boundaries=boundaries, seed=0, ridge=1e-3, rank=None, tangents=2, krylov_steps=1)
    metric = kind.make(model, asked)
    for trajectory in trajectories(model, images, stream=Stream(workers=0), branches=kind.needs_branches):
        trajectory.labels = trajectory.positions % 2
        metric.update(trajectory)
    metric.distributed_available_fn = lambda: True
    metric.dist_sync_fn = lambda value, group=None: [value, value]
    assert metric.withheld() is None
    found = metric.details(boundaries)
    tables = [metric.table(boundaries)] if found is None else [found.rows, *found.tables().values()]
    counts = {int(one) for table in tables if "n_images" in table for one in table["n_images"]}
    assert counts <= {20, 4, 0}  # of modes one image of five is judged by
    assert counts & {20, 4} or (name, depth) == ("turning", 1)  # which is between two updates
