"""Images by name, folder, file, table or from the packaged samples."""

from brdyn.data.find import find_source
from brdyn.data.image_set import ImageSet, load_images
from brdyn.data.items import Batch, ReadReport
from brdyn.data.labels import NO_LABEL
from brdyn.data.sources import Skipped

__all__ = ["NO_LABEL", "Batch", "ImageSet", "ReadReport", "Skipped", "find_source", "load_images"]
