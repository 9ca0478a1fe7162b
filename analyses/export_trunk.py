"""Save the trunk of a timm-based model as one safetensors file, for a machine without its package or network.

python -m analyses.export_trunk --dtype float16 --file trunk.safetensors
brdyn phases --model imgfocus_vits14 --weights trunk.safetensors
"""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import save

from analyses.recording import OFFLINE, Choice, command, plain_parser
from brdyn import load_model
from brdyn.choices import DTYPES
from brdyn.models import dinov2
from brdyn.models.request import as_dtype
from brdyn.store import write_atomically

NATIVE = dinov2.NATIVE_GRID * dinov2.PATCH


def run(choice: Choice) -> None:
    """Export at the native size, so that positions are resampled where the file is read."""
    model = load_model(choice.model, image_size=NATIVE)
    dtype, trunk = as_dtype(choice.dtype), model.get_submodule("backbone").state_dict()
    state = {name: value.to(dtype).contiguous() for name, value in trunk.items()}
    write_atomically(choice.file, save(state))
    print(f"{choice.file}: {choice.file.stat().st_size / 2**20:.1f} MiB")


OPTIONS = plain_parser(__doc__)
OPTIONS.add_argument("--model", default=OFFLINE, help=f"{OFFLINE} or a torch-hub DINOv2 name")
OPTIONS.add_argument("--dtype", default="float32", choices=DTYPES)
OPTIONS.add_argument("--file", type=Path, required=True)
main = command(run, OPTIONS, __name__)
