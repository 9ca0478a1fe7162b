"""What the server of :mod:`tests.forked` imports once."""

import accelerate  # noqa: F401
import datasets  # noqa: F401
import timm  # noqa: F401
import torch
import transformers.models.vit.modeling_vit  # noqa: F401

import brdyn.classifiers
import brdyn.cli.commands
import brdyn.measures.dynamics
import brdyn.plots
import brdyn.raptor.evaluation
import brdyn.raptor.fit  # noqa: F401

torch.set_num_threads(1)
