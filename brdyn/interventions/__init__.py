"""Interventions on a model's depth: context managers that are always undone, and the three studies built on them."""

from brdyn.interventions.contexts import delete, perturb, reorder, replace, shuffle, swap
from brdyn.interventions.repair import perturbation_repair
from brdyn.interventions.repair_result import Repair
from brdyn.interventions.splice import splice_skill
from brdyn.interventions.splice_result import Splice
from brdyn.interventions.surgery import layer_surgery
from brdyn.interventions.surgery_result import Surgery
from brdyn.interventions.within_across import WithinAcross, within_against_across

__all__ = [
    "Repair",
    "Splice",
    "Surgery",
    "WithinAcross",
    "delete",
    "layer_surgery",
    "perturb",
    "perturbation_repair",
    "reorder",
    "replace",
    "shuffle",
    "splice_skill",
    "swap",
    "within_against_across",
]
