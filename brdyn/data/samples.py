"""The packaged samples: photographs that scikit-image and scikit-learn ship, in fixed crops.

Five overlapping crops of fourteen photographs give seventy images without a download. Crops of one
photograph resemble each other, so seventy crops say less than seventy photographs.
"""

from __future__ import annotations

import io
from importlib.util import find_spec
from pathlib import Path

from PIL import Image

from brdyn.data.decode import decode
from brdyn.data.sources import ImageSource, RawImage
from brdyn.errors import BrdynError

SKIMAGE = [
    "astronaut.png",
    "brick.png",
    "camera.png",
    "chelsea.png",
    "coffee.png",
    "coins.png",
    "grass.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "moon.png",
    "motorcycle_left.png",
    "rocket.jpg",
]
SKLEARN = ("china.jpg", "flower.jpg")
CROPS = {
    "top-left": (0, 0),
    "top-right": (1, 0),
    "bottom-left": (0, 1),
    "bottom-right": (1, 1),
    "centre": (0.5, 0.5),
}
SIDE = 0.625


class SampleSource(ImageSource):
    """Square crops, five-eighths of the short side, at the corners and the centre of each photograph."""

    description = "samples"

    def __init__(self) -> None:
        self.photos = [*_files("skimage", "data", SKIMAGE), *_files("sklearn", "datasets/images", SKLEARN)]

    def __len__(self) -> int:
        return len(self.photos) * len(CROPS)

    def read(self, index: int) -> RawImage:
        """Cut one crop and encode it without loss."""
        photo, corner = self._place(index)
        image = decode(photo.read_bytes())
        side = round(min(image.size) * SIDE)
        x, y = CROPS[corner]
        left, top = round(x * (image.width - side)), round(y * (image.height - side))
        buffer = io.BytesIO()
        image.crop((left, top, left + side, top + side)).save(buffer, format="BMP")
        return RawImage(self.name(index), buffer.getvalue())

    def name(self, index: int) -> str:
        """Photograph and crop."""
        photo, corner = self._place(index)
        return f"{photo.name} {corner}"

    def image(self, index: int) -> Image.Image:
        """One crop as a picture."""
        return decode(self.read(index).data)

    def _place(self, index: int) -> tuple[Path, str]:
        photo, crop = divmod(index, len(CROPS))
        return self.photos[photo], list(CROPS)[crop]


def _files(package: str, folder: str, names: tuple[str, ...] | list[str]) -> list[Path]:
    spec = find_spec(package)
    where = spec.submodule_search_locations if spec else None
    paths = [Path(where[0]) / folder / name for name in names] if where else []
    missing = [path.name for path in paths if not path.is_file()]
    if not paths or missing:
        what = f"{package} without {', '.join(missing)}" if missing else f"{package} is not installed"
        raise BrdynError(f"the packaged samples are not here ({what}); pip install 'brdyn[offline]'")
    return paths
