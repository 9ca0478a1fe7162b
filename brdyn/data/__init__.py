"""Images by name, folder, file, table or from the packaged samples."""

from brdyn.data.dense import DenseSet, load_dense
from brdyn.data.find import find_source
from brdyn.data.image_set import ImageSet, load_images
from brdyn.data.items import Batch, ReadReport
from brdyn.data.labels import NO_LABEL
from brdyn.data.sources import Skipped
from brdyn.data.targets import DepthTargets, MaskTargets, read_palette

__all__ = [
    "NO_LABEL",
    "Batch",
    "DenseSet",
    "DepthTargets",
    "ImageSet",
    "MaskTargets",
    "ReadReport",
    "Skipped",
    "find_source",
    "load_dense",
    "load_images",
    "read_palette",
]
