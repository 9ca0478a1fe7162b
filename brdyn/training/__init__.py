"""The training room: one loop, exact resume, checkpoints. It knows nothing of what is trained."""

import lazy_loader

# Imported on first use: the command line reads settings without torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
