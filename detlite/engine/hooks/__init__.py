"""Hooks, one concern a file; importing this package registers them."""

from .checkpointing import BestCheckpointer, PeriodicCheckpointer
from .evaluation import Evaluation, flatten_results
from .lr_scheduler import LRScheduler
from .metrics import IterationTimer, MetricSummary
from .non_finite import NonFiniteLossCheck
from .pictures import PredictionPictures
from .progress import ProgressBar
from .writers import ConsoleWriter, JSONWriter, TensorBoardWriter

__all__ = [
    "BestCheckpointer",
    "ConsoleWriter",
    "Evaluation",
    "IterationTimer",
    "JSONWriter",
    "LRScheduler",
    "MetricSummary",
    "NonFiniteLossCheck",
    "PeriodicCheckpointer",
    "PredictionPictures",
    "ProgressBar",
    "TensorBoardWriter",
    "flatten_results",
]
