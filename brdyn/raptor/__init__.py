"""Raptor: one shared block for each phase of a ViT. BRH (arXiv 2512.19941)."""

import lazy_loader

# Imported on first use: the command line reads the recipe without torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
