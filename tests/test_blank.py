"""Blank modules have their shapes and nothing else, and what has memory is filled as ever."""

import timm
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from brdyn.blank import NoValues, on_meta
from brdyn.classifiers.saved import KIND, Classifier, SavedConfig
from brdyn.models import timm_trunks
from brdyn.store import pretrained

NAME = "test_vit"


class Heard(TorchDispatchMode):
    """The operations that run inside."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(func._schema.name.removeprefix("aten::"))
        return func(*args, **(kwargs or {}))


def test_no_value_is_drawn_for_a_blank_module():
    with Heard() as heard, on_meta():
        blank = timm.create_model(NAME)
    assert not heard.names & {"normal_", "uniform_", "erfinv_", "mul_", "add_", "clamp_", "fill_", "zero_"}
    assert {parameter.device.type for parameter in blank.parameters()} == {"meta"}
    usual = timm.create_model(NAME).state_dict()
    assert {name: value.shape for name, value in blank.state_dict().items()} == {
        name: value.shape for name, value in usual.items()
    }


def test_no_value_is_drawn_for_what_weights_are_compared_with(tmp_path):
    size = {"width": 4, "heads": 1, "hidden": 4, "depth": 1}
    classifier = Classifier.new("vit-tiny12", ("a", "b"), 8, (0.5,) * 3, (0.5,) * 3, **size)
    classifier.save_pretrained(tmp_path)
    config, _ = pretrained.read_config(tmp_path, KIND, SavedConfig)
    with Heard() as heard:
        found = pretrained.read_weights(config.make, tmp_path, config.digest)
    assert found.keys() == classifier.network.state_dict().keys()
    assert not heard.names & {"normal_", "uniform_", "erfinv_", "mul_", "add_", "clamp_"}


def test_an_architecture_to_be_filled_has_no_memory_for_parameters():
    with Heard() as heard:
        made = timm_trunks.create(NAME)
    assert not heard.names & {"erfinv_", "mul_", "add_", "clamp_"}
    assert {parameter.device.type for parameter in made.parameters()} == {"meta"}
    assert all(parameter.requires_grad for parameter in made.parameters())


def test_what_has_memory_is_filled():
    expected = torch.nn.init.normal_(torch.empty(5), generator=torch.Generator().manual_seed(0))
    with NoValues():
        found = torch.nn.init.normal_(torch.empty(5), generator=torch.Generator().manual_seed(0))
        ones = torch.zeros(2).fill_(3).mul_(2)
    torch.testing.assert_close(found, expected)
    assert ones.tolist() == [6, 6]
