"""Runs: the trainer, its hooks, and what builds them of a config."""

from . import hooks
from .build import build_model, build_trainer
from .check_resume import ResumeReport, check_resume
from .ema import ModelEMA
from .evaluate import build_test_loaders, evaluate_model
from .hook_base import HookBase
from .predictor import Predictor
from .registries import HOOK_REGISTRY
from .trainer import Trainer

__all__ = [
    "HOOK_REGISTRY",
    "HookBase",
    "ModelEMA",
    "Predictor",
    "ResumeReport",
    "Trainer",
    "build_model",
    "build_test_loaders",
    "build_trainer",
    "check_resume",
    "evaluate_model",
    "hooks",
]
