"""Runs: the trainer, its hooks, and what builds them of a config."""

from . import hooks
from .build import build_model, build_test_loaders, build_trainer, evaluate_model
from .ema import ModelEMA
from .hook_base import HookBase
from .predictor import Predictor
from .registries import HOOK_REGISTRY
from .trainer import Trainer

__all__ = [
    "HOOK_REGISTRY",
    "HookBase",
    "ModelEMA",
    "Predictor",
    "Trainer",
    "build_model",
    "build_test_loaders",
    "build_trainer",
    "evaluate_model",
    "hooks",
]
