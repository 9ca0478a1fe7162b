"""Images by name, folder, file, parquet or from the packaged samples."""

from brdyn.data.image_set import Batch, ImageSet, ReadReport, Skipped, load_images
from brdyn.data.sources import find_source

__all__ = ["Batch", "ImageSet", "ReadReport", "Skipped", "find_source", "load_images"]
