"""From what a model finds in a data set to numbers."""

from .coco_evaluator import COCOEvaluator
from .coco_metrics import CocoMetrics, coco_box_metrics, evaluate_coco_files
from .detection_evaluator import DetectionEvaluator, Detections
from .evaluator import DatasetEvaluator, inference_on_dataset
from .ground_truth import GroundTruth
from .registries import EVALUATOR_REGISTRY
from .voc_evaluator import VOCEvaluator

__all__ = [
    "EVALUATOR_REGISTRY",
    "COCOEvaluator",
    "CocoMetrics",
    "DatasetEvaluator",
    "DetectionEvaluator",
    "Detections",
    "GroundTruth",
    "VOCEvaluator",
    "coco_box_metrics",
    "evaluate_coco_files",
    "inference_on_dataset",
]
