"""How weights move: optimizers and learning rate schedules."""

from .lr_schedule import WarmupCosineLR, WarmupMultiStepLR
from .optimizer import build_optimizer, parameter_groups
from .registries import OPTIMIZER_REGISTRY, SCHEDULE_REGISTRY

__all__ = [
    "OPTIMIZER_REGISTRY",
    "SCHEDULE_REGISTRY",
    "WarmupCosineLR",
    "WarmupMultiStepLR",
    "build_optimizer",
    "parameter_groups",
]
