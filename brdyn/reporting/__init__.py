"""Reports: everything about a few models in one folder, with a page that says what it means."""

import lazy_loader

# Imported on first use: `brdyn report --help` then needs no torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
