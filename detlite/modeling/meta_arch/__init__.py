"""Whole models, one a file; importing this package registers them."""

from .dense_detector import DenseDetector
from .fcos import FCOS
from .image_classifier import ImageClassifier
from .retinanet import RetinaNet

__all__ = ["FCOS", "DenseDetector", "ImageClassifier", "RetinaNet"]
