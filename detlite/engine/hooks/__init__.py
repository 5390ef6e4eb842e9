"""Hooks, one concern a file; importing this package registers them."""

from .checkpointing import BestCheckpointer, PeriodicCheckpointer
from .early_stopping import EarlyStopping
from .evaluation import Evaluation, flatten_results, metric_value
from .json_writer import JSONWriter
from .lr_scheduler import LRScheduler
from .metrics import IterationTimer, MetricSummary
from .mlflow_writer import MLflowWriter
from .non_finite import NonFiniteLossCheck
from .pictures import PredictionPictures
from .progress import ProgressBar
from .run_folder import RunFolder
from .run_summary import RunSummary
from .stop_signals import StopSignals
from .validation_loss import ValidationLoss
from .wandb_writer import WandbWriter
from .writers import ConsoleWriter, TensorBoardWriter

__all__ = [
    "BestCheckpointer",
    "ConsoleWriter",
    "EarlyStopping",
    "Evaluation",
    "IterationTimer",
    "JSONWriter",
    "LRScheduler",
    "MLflowWriter",
    "MetricSummary",
    "NonFiniteLossCheck",
    "PeriodicCheckpointer",
    "PredictionPictures",
    "ProgressBar",
    "RunFolder",
    "RunSummary",
    "StopSignals",
    "TensorBoardWriter",
    "ValidationLoss",
    "WandbWriter",
    "flatten_results",
    "metric_value",
]
