"""From what a model finds in a data set to numbers.

What evaluates files works without torch, so that it starts at once; the names that need torch are
imported when they are first used (PEP 562).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .best_points import BestPoint
from .bootstrap import Interval, ap_interval
from .coco_arrays import CocoArrays, coco_arrays
from .coco_metrics import (
    CocoEvaluation,
    CocoMetrics,
    coco_box_metrics,
    coco_summary,
    evaluate_boxes,
    evaluate_coco_files,
)
from .confusion import ConfusionMatrix, confusion_matrix
from .ground_truth import GroundTruth

if TYPE_CHECKING:
    from .classification_evaluator import ClassificationEvaluator
    from .coco_evaluator import COCOEvaluator
    from .detection_evaluator import DetectionEvaluator, Detections
    from .evaluator import DatasetEvaluator, inference_on_dataset
    from .registries import EVALUATOR_REGISTRY
    from .voc_evaluator import VOCEvaluator

__all__ = [
    "EVALUATOR_REGISTRY",
    "BestPoint",
    "COCOEvaluator",
    "ClassificationEvaluator",
    "CocoArrays",
    "CocoEvaluation",
    "CocoMetrics",
    "ConfusionMatrix",
    "DatasetEvaluator",
    "DetectionEvaluator",
    "Detections",
    "GroundTruth",
    "Interval",
    "VOCEvaluator",
    "ap_interval",
    "coco_arrays",
    "coco_box_metrics",
    "coco_summary",
    "confusion_matrix",
    "evaluate_boxes",
    "evaluate_coco_files",
    "inference_on_dataset",
]

_NEED_TORCH = (
    "evaluator",
    "detection_evaluator",
    "coco_evaluator",
    "voc_evaluator",
    "classification_evaluator",
    "registries",
)


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    # All of them at once, so that the registry of evaluators is full whoever takes it.
    for module in [import_module(f".{module}", __name__) for module in _NEED_TORCH]:
        globals().update({key: value for key, value in vars(module).items() if key in __all__})
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
