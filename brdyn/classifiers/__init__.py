"""Classifiers trained from scratch on small images: ViTRM, and ViTs and ResNets beside it."""

import lazy_loader

# Imported on first use: the command line reads the recipe without torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
