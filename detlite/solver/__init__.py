"""How weights move: which of them, in which groups, optimizers and learning rate schedules."""

from .batch_scaling import scale_to_batch
from .freezing import freeze_parameters, frozen_norms
from .grouping import parameter_groups
from .lr_schedule import WarmupCosineLR, WarmupMultiStepLR, build_schedule
from .muon import Muon
from .optimizer import build_optimizer, group_table
from .registries import OPTIMIZER_REGISTRY, SCHEDULE_REGISTRY
from .resuming import FreshSolver, scale_rates

__all__ = [
    "OPTIMIZER_REGISTRY",
    "SCHEDULE_REGISTRY",
    "FreshSolver",
    "Muon",
    "WarmupCosineLR",
    "WarmupMultiStepLR",
    "build_optimizer",
    "build_schedule",
    "freeze_parameters",
    "frozen_norms",
    "group_table",
    "parameter_groups",
    "scale_rates",
    "scale_to_batch",
]
