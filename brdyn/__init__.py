"""brdyn: block-recurrent dynamics of pretrained Vision Transformers.

>>> import brdyn
>>> model = brdyn.load_model("imgfocus_vits14")
>>> images = brdyn.load_images("samples", model, n=4)
>>> similarity = brdyn.layer_similarity(model, images)
>>> phases = brdyn.segment(similarity)
>>> phases.layers
12

Other examples go on from here: `model`, `images`, `similarity` and `phases` are a ViT with 12 layers, eight pictures in
two class folders, and what is made of them; NumPy is `np`.
"""

from pathlib import Path

import lazy_loader

# Imported on first use: `brdyn --help` and `brdyn.phases` then need no torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ = [name for name in __all__ if not Path(__file__).with_name(name).is_dir()]  # without the rooms
